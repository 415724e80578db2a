//! Which requests wait for company before a replica decides them.
//!
//! A group costs every member a frame, a sync and several wake-ups, whatever
//! its size. So requests that come while a group is on its way wait until they
//! are worth one of their own: at least half as many as are uncommitted. A lone
//! client never waits, many clients settle into few full groups, and at most a
//! logarithm of them are under way. (The idea is Nagle's, RFC 896, with the
//! commit as the acknowledgement; figures in `docs/decisions/016-company.md`.)

use std::time::Duration;

use catena_proto::ids::ShardId;
use catena_proto::time::Mono;

use super::prior::weight;
use crate::replica::Request;

/// Requests wait this long at most: a chain that does not commit still gets, or refuses, what is asked of it.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// More requests than this do not wait.
const COUNT_MAX: usize = 4096;
/// Nor more bytes than this.
const BYTES_MAX: usize = 1 << 20;

/// The requests of all shards that wait.
#[derive(Debug, Default)]
pub(crate) struct Company {
    shards: Vec<Batch>,
}

#[derive(Debug)]
struct Batch {
    shard: ShardId,
    since: Mono,
    requests: Vec<Request>,
    bytes: usize,
}

impl Company {
    /// Adds requests of one shard, in order.
    pub(crate) fn add(&mut self, shard: ShardId, requests: Vec<Request>, now: Mono) {
        let bytes: usize = requests.iter().map(weight).sum();
        match self.shards.iter_mut().find(|batch| batch.shard == shard) {
            Some(batch) => {
                batch.requests.extend(requests);
                batch.bytes += bytes;
            }
            None => self.shards.push(Batch {
                shard,
                since: now,
                requests,
                bytes,
            }),
        }
    }

    /// Takes a shard's requests if some shard's should wait no longer. `uncommitted` tells the records of a shard
    /// that are on their way.
    pub(crate) fn take_ready(
        &mut self,
        now: Mono,
        uncommitted: impl Fn(ShardId) -> u64,
    ) -> Option<(ShardId, Vec<Request>)> {
        let at = self.shards.iter().position(|batch| {
            let count = batch.requests.len();
            count as u64 * 2 >= uncommitted(batch.shard)
                || count >= COUNT_MAX
                || batch.bytes >= BYTES_MAX
                || now >= batch.since.plus(WAIT_MAX)
        })?;
        let batch = self.shards.swap_remove(at);
        Some((batch.shard, batch.requests))
    }

    /// When the first of them has waited long enough.
    pub(crate) fn next_at(&self) -> Option<Mono> {
        let since = self.shards.iter().map(|batch| batch.since).min()?;
        Some(since.plus(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ReplyTo;
    use bytes::Bytes;
    use catena_proto::op::{Command, WriteOp};

    const ONE: ShardId = ShardId::new(1);
    const TWO: ShardId = ShardId::new(2);
    const NOW: Mono = Mono::from_millis(1);

    fn requests(count: usize, bytes: usize) -> Vec<Request> {
        let request = Request {
            reply_to: ReplyTo {
                connection: 1,
                request: 1,
            },
            id: None,
            command: Command::Write {
                key: Bytes::from_static(b"k"),
                op: WriteOp::Put {
                    value: Bytes::from(vec![0; bytes]),
                },
            },
            prior: None,
            deadline: NOW,
        };
        vec![request; count]
    }

    fn taken(company: &mut Company, now: Mono, uncommitted: u64) -> Option<(ShardId, usize)> {
        let taken = company.take_ready(now, |_| uncommitted);
        taken.map(|(shard, requests)| (shard, requests.len()))
    }

    #[test]
    fn a_lone_request_never_waits() {
        let mut company = Company::default();
        company.add(ONE, requests(1, 1), NOW);
        assert_eq!(taken(&mut company, NOW, 0), Some((ONE, 1)));
        assert_eq!(taken(&mut company, NOW, 0), None);
        assert_eq!(company.next_at(), None);
    }

    #[test]
    fn requests_wait_until_they_are_half_of_what_is_on_its_way() {
        let mut company = Company::default();
        company.add(ONE, requests(3, 1), NOW);
        assert_eq!(taken(&mut company, NOW, 8), None);
        company.add(ONE, requests(1, 1), NOW);
        assert_eq!(taken(&mut company, NOW, 8), Some((ONE, 4)));
    }

    #[test]
    fn one_shard_does_not_wait_for_another() {
        let mut company = Company::default();
        company.add(ONE, requests(1, 1), NOW);
        company.add(TWO, requests(1, 1), NOW);
        let ready = company.take_ready(NOW, |shard| if shard == ONE { 100 } else { 0 });
        assert_eq!(ready.map(|(shard, _)| shard), Some(TWO));
        assert_eq!(taken(&mut company, NOW, 100), None);
    }

    #[test]
    fn nobody_waits_longer_than_the_limit_nor_with_more_than_the_limit() {
        let mut company = Company::default();
        company.add(ONE, requests(1, 1), NOW);
        let later = company.next_at();
        assert_eq!(later, Some(NOW.plus(WAIT_MAX)));
        assert_eq!(taken(&mut company, NOW, 100), None);
        assert_eq!(
            taken(&mut company, NOW.plus(WAIT_MAX), 100),
            Some((ONE, 1)),
            "a chain that does not commit is still asked"
        );
        company.add(ONE, requests(COUNT_MAX, 1), NOW);
        assert_eq!(taken(&mut company, NOW, u64::MAX), Some((ONE, COUNT_MAX)));
        company.add(ONE, requests(1, BYTES_MAX), NOW);
        assert_eq!(taken(&mut company, NOW, u64::MAX), Some((ONE, 1)));
    }
}
