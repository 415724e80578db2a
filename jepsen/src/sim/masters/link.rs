//! Subscriptions: two queues each, in order, that lose what they hold only by breaking.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use catena_proto::config::Delta;
use catena_proto::report::{NodeOpen, PushOutcome, Report};
use catena_proto::time::Mono;

/// What a node says.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Open(NodeOpen),
    Report(Report),
    Outcome(PushOutcome),
    Closed,
}

/// What a master says.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Push(Delta),
    ReadSnapshot,
    Alive,
    Closed,
}

/// One subscription.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) node: u64,
    pub(super) master: usize,
    up: VecDeque<(Mono, Up)>,
    down: VecDeque<(Mono, Down)>,
}

/// Every subscription, by its number.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    streams: BTreeMap<u64, Stream>,
    made: u64,
    /// How long a message takes, by node.
    pub(super) delays: BTreeMap<u64, Duration>,
}

impl Links {
    pub(super) fn open(&mut self, node: u64, master: usize) -> u64 {
        self.made += 1;
        let stream = Stream {
            node,
            master,
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        self.streams.insert(self.made, stream);
        self.made
    }

    fn delay(&self, node: u64) -> Duration {
        self.delays.get(&node).copied().unwrap_or_default()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// Streams of one master, in the order in which they were opened.
    pub(super) fn of_master(&self, master: usize) -> Vec<u64> {
        let of = self.streams.iter().filter(|(_, s)| s.master == master);
        of.map(|(id, _)| *id).collect()
    }

    pub(super) fn say_up(&mut self, id: u64, now: Mono, what: Up) {
        let delay = self.streams.get(&id).map(|s| self.delay(s.node));
        if let (Some(stream), Some(delay)) = (self.streams.get_mut(&id), delay) {
            stream.up.push_back((now.plus(delay), what));
        }
    }

    pub(super) fn say_down(&mut self, id: u64, now: Mono, what: Down) {
        let delay = self.streams.get(&id).map(|s| self.delay(s.node));
        if let (Some(stream), Some(delay)) = (self.streams.get_mut(&id), delay) {
            stream.down.push_back((now.plus(delay), what));
        }
    }

    pub(super) fn hear_up(&mut self, id: u64, now: Mono) -> Option<Up> {
        let stream = self.streams.get_mut(&id)?;
        stream.up.front().filter(|(due, _)| *due <= now)?;
        stream.up.pop_front().map(|(_, what)| what)
    }

    pub(super) fn hear_down(&mut self, id: u64, now: Mono) -> Option<Down> {
        let stream = self.streams.get_mut(&id)?;
        stream.down.front().filter(|(due, _)| *due <= now)?;
        stream.down.pop_front().map(|(_, what)| what)
    }

    /// Both ends are gone: what is under way is lost.
    pub(super) fn drop_stream(&mut self, id: u64) {
        self.streams.remove(&id);
    }
}
