//! Load whose every answer is remembered, so that a test can say at the end what was lost or done twice.
//!
//! Each writer owns its keys, and leaves a key alone for good once the outcome
//! of a write to it is unknown: then a key holds the last acknowledged write,
//! or the one that nobody knows about, and nothing else.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use catena_client::{Client, Error, Options, ScanRange};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::wait_until;

/// Keys that a writer of puts goes round.
const KEYS_PER_WRITER: usize = 40;
/// Items in a list before the next one is begun: a list is one value, and it is read whole.
const ITEMS_PER_LIST: usize = 200;
/// Pause before the next operation after one without an answer: a chain that is down is not to be stormed.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one operation may take. Long enough for a session to carry it over a restart,
/// short enough that some end unknown.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);

/// What writers know about one key.
#[derive(Clone, Debug, Default)]
struct Register {
    acknowledged: Option<String>,
    unknown: Option<String>,
}

/// What writers know about one counter.
#[derive(Clone, Debug, Default)]
struct Count {
    acknowledged: Vec<i64>,
    unknown: i64,
}

/// What a writer knows about one list of its own.
#[derive(Clone, Debug, Default)]
struct List {
    acknowledged: Vec<String>,
    unknown: Vec<String>,
}

/// What one writer knows.
#[derive(Clone, Debug, Default)]
struct Ledger {
    registers: BTreeMap<String, Register>,
    counters: BTreeMap<String, Count>,
    lists: BTreeMap<String, List>,
    /// Acknowledged writes that a read after the acknowledgement did not find.
    broken_reads: Vec<String>,
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    runtime: Runtime,
    client: Client,
    stop: Arc<AtomicBool>,
    /// Acknowledged writes, by writer.
    progress: Vec<Arc<AtomicU64>>,
    writers: Vec<JoinHandle<Ledger>>,
}

/// One writer's own.
#[derive(Debug)]
struct Writer {
    id: usize,
    client: Client,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    ledger: Ledger,
}

impl Load {
    /// Two writers each of puts, of increments and of appends, with sessions.
    #[track_caller]
    pub(crate) fn start(endpoints: &[String]) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let options = Options {
            timeout: OPERATION_TIMEOUT,
            ..Options::default()
        };
        let client = runtime
            .block_on(Client::connect(endpoints.to_vec(), options))
            .expect("a cluster");
        let mut load = Self {
            runtime,
            client,
            stop: Arc::default(),
            progress: Vec::new(),
            writers: Vec::new(),
        };
        load.spawn(Writer::puts);
        load.spawn(Writer::puts);
        load.spawn(Writer::increments);
        load.spawn(Writer::increments);
        load.spawn(Writer::appends);
        load.spawn(Writer::appends);
        load
    }

    fn spawn<W>(&mut self, work: impl FnOnce(Writer) -> W)
    where
        W: Future<Output = Ledger> + Send + 'static,
    {
        let acknowledged = Arc::default();
        let writer = Writer {
            id: self.writers.len(),
            client: self.client.clone(),
            stop: Arc::clone(&self.stop),
            acknowledged: Arc::clone(&acknowledged),
            ledger: Ledger::default(),
        };
        self.progress.push(acknowledged);
        self.writers.push(self.runtime.spawn(work(writer)));
    }

    /// Waits until every writer has had `more` acknowledgements from here on.
    #[track_caller]
    pub(crate) fn wait_progress(&self, more: u64) {
        let now: Vec<u64> = self.counts();
        wait_until("every writer gets on", || {
            let counts = self.counts();
            counts
                .iter()
                .zip(&now)
                .all(|(count, was)| *count >= was + more)
        });
    }

    fn counts(&self) -> Vec<u64> {
        let all = self.progress.iter();
        all.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Ends the load, reads everything back, and fails the test when an acknowledged write is
    /// lost or a write was executed twice. Gives the number of acknowledged writes.
    #[track_caller]
    pub(crate) fn finish(self) -> u64 {
        let acknowledged = self.counts().iter().sum();
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.runtime.block_on(async {
            let mut ledgers = Vec::new();
            for writer in self.writers {
                ledgers.push(writer.await.expect("a writer that ends"));
            }
            let found = read_all(&self.client)
                .await
                .expect("everything is read back");
            verdict(&ledgers, &found)
        });
        assert!(
            wrong.is_empty(),
            "{} of {acknowledged}: {wrong:#?}",
            wrong.len()
        );
        acknowledged
    }
}

async fn read_all(client: &Client) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    let mut scan = client.scan(ScanRange::prefix("load/"));
    while let Some(row) = scan.next().await? {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        found.insert(text(&row.key), text(&row.value));
    }
    Ok(found)
}

/// What is wrong with `found`, in words; nothing when every promise was kept.
fn verdict(ledgers: &[Ledger], found: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut counters: BTreeMap<&String, Count> = BTreeMap::new();
    for ledger in ledgers {
        wrong.extend(ledger.broken_reads.iter().cloned());
        for (key, register) in &ledger.registers {
            let value = found.get(key);
            if value != register.acknowledged.as_ref() && value != register.unknown.as_ref() {
                wrong.push(format!("{key} holds {value:?}: {register:?}"));
            }
        }
        for (key, count) in &ledger.counters {
            let all = counters.entry(key).or_default();
            all.acknowledged.extend(&count.acknowledged);
            all.unknown += count.unknown;
        }
        for (key, list) in &ledger.lists {
            wrong.extend(list_verdict(key, list, found.get(key)));
        }
    }
    for (key, mut count) in counters {
        let value: i64 = found.get(key).map_or(0, |text| text.parse().unwrap_or(-1));
        let acknowledged = i64::try_from(count.acknowledged.len()).unwrap_or(i64::MAX);
        let unknown = count.unknown;
        if value < acknowledged || value > acknowledged + unknown {
            wrong.push(format!(
                "{key} is {value}: {acknowledged} acknowledged, {unknown} unknown"
            ));
        }
        count.acknowledged.sort_unstable();
        let twice = count.acknowledged.windows(2).find(|two| two[0] == two[1]);
        wrong.extend(twice.map(|two| format!("{key}: two increments were told {}", two[0])));
    }
    wrong
}

fn list_verdict(key: &str, list: &List, value: Option<&String>) -> Vec<String> {
    let items: Vec<&str> = value.map_or_else(Vec::new, |text| text.split_terminator(',').collect());
    let mut wrong = Vec::new();
    let mut known = items.clone();
    known.retain(|item| !list.unknown.iter().any(|unknown| unknown == item));
    if known != list.acknowledged {
        let lost: Vec<&String> = list
            .acknowledged
            .iter()
            .filter(|item| !known.contains(&item.as_str()))
            .collect();
        wrong.push(format!(
            "{key} holds {} acknowledged items of {}, or in another order, or others; lost: {lost:?}",
            known.len(),
            list.acknowledged.len(),
        ));
    }
    let mut unknown = items;
    unknown.retain(|item| list.unknown.iter().any(|unknown| unknown == item));
    let times = unknown.len();
    unknown.sort_unstable();
    unknown.dedup();
    if unknown.len() != times {
        wrong.push(format!("{key} holds an unknown item twice"));
    }
    wrong
}

impl Writer {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Counts an acknowledgement, or lets a moment pass.
    async fn note<T>(&self, answer: &Result<T, Error>) {
        match answer {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }

    /// Unique values on keys of its own, some read again at once.
    async fn puts(mut self) -> Ledger {
        let mut no = 0_u64;
        let mut keys: Vec<String> = Vec::new();
        let mut made = 0;
        while self.goes_on() {
            while keys.len() < KEYS_PER_WRITER {
                keys.push(format!("load/put/{}/{made:06}", self.id));
                made += 1;
            }
            no += 1;
            let at = usize::try_from(no).unwrap_or(0) % keys.len();
            let key = keys[at].clone();
            let value = format!("{}-{no}", self.id);
            let answer = self.client.put(key.clone(), value.clone()).await;
            let register = self.ledger.registers.entry(key.clone()).or_default();
            match &answer {
                Ok(_) => register.acknowledged = Some(value.clone()),
                Err(Error::Failed(_)) => {}
                Err(Error::Unknown(_)) => {
                    register.unknown = Some(value.clone());
                    keys.remove(at);
                }
            }
            self.note(&answer).await;
            if answer.is_ok()
                && no.is_multiple_of(8)
                && let Ok(read) = self.client.get(key.clone()).await
                && read
                    .as_ref()
                    .is_none_or(|read| read.value != value.as_bytes())
            {
                self.ledger.broken_reads.push(format!(
                    "{key}: {value} was acknowledged, then {read:?} was read"
                ));
            }
        }
        self.ledger
    }

    /// A counter that every writer of increments shares, and one of its own.
    async fn increments(mut self) -> Ledger {
        let keys = [
            "load/count/shared".to_owned(),
            format!("load/count/{}", self.id),
        ];
        while self.goes_on() {
            for key in &keys {
                let answer = self.client.increment(key.clone(), 1).await;
                let count = self.ledger.counters.entry(key.clone()).or_default();
                match &answer {
                    Ok(counter) => count.acknowledged.push(counter.value),
                    Err(Error::Failed(_)) => {}
                    Err(Error::Unknown(_)) => count.unknown += 1,
                }
                self.note(&answer).await;
            }
        }
        self.ledger
    }

    /// Unique items at the end of lists of its own.
    async fn appends(mut self) -> Ledger {
        let mut no = 0;
        while self.goes_on() {
            let key = format!("load/list/{}/{:06}", self.id, no / ITEMS_PER_LIST);
            let item = format!("{}.{no}", self.id);
            let answer = self.client.append(key.clone(), format!("{item},")).await;
            let list = self.ledger.lists.entry(key).or_default();
            match &answer {
                Ok(_) => list.acknowledged.push(item),
                Err(Error::Failed(_)) => {}
                Err(Error::Unknown(_)) => list.unknown.push(item),
            }
            self.note(&answer).await;
            no += 1;
        }
        self.ledger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (Ledger, BTreeMap<String, String>) {
        let mut ledger = Ledger::default();
        let register = Register {
            acknowledged: Some("1".into()),
            unknown: Some("2".into()),
        };
        ledger.registers.insert("r".into(), register);
        let count = Count {
            acknowledged: vec![1, 2, 4],
            unknown: 1,
        };
        ledger.counters.insert("c".into(), count);
        let list = List {
            acknowledged: vec!["a".into(), "b".into()],
            unknown: vec!["u".into()],
        };
        ledger.lists.insert("l".into(), list);
        let good = [("r", "1"), ("c", "4"), ("l", "a,u,b,")];
        let good = good.map(|(key, value)| (key.to_owned(), value.to_owned()));
        (ledger, good.into())
    }

    #[test]
    fn what_was_promised_and_what_is_unknown_pass() {
        let (ledger, mut found) = ledger();
        assert!(verdict(std::slice::from_ref(&ledger), &found).is_empty());
        found.insert("r".into(), "2".into());
        found.insert("c".into(), "3".into());
        found.insert("l".into(), "a,b,".into());
        assert!(verdict(&[ledger], &found).is_empty());
    }

    #[test]
    fn each_loss_and_each_double_is_found() {
        let (ledger, good) = ledger();
        let bad = [
            ("r", "0"),
            ("c", "2"),
            ("c", "5"),
            ("l", "a,"),
            ("l", "a,b,b,"),
            ("l", "b,a,"),
            ("l", "a,u,u,b,"),
            ("l", "a,x,b,"),
        ];
        for (key, value) in bad {
            let mut found = good.clone();
            found.insert(key.into(), value.into());
            let wrong = verdict(std::slice::from_ref(&ledger), &found);
            assert_eq!(wrong.len(), 1, "{key} = {value}: {wrong:?}");
        }
        let mut found = good;
        found.clear();
        assert_eq!(verdict(&[ledger], &found).len(), 3);
    }
}
