//! The requests of one connection: waiting, sent, answered.
//!
//! A request takes a cell when it is submitted and leaves it when its caller has
//! the answer or goes away; a request's name is its cell and how often the cell
//! was used before, so that an answer needs no search, and a late one hits
//! nothing. One lock guards it all, held for a few instructions per request, and
//! once per frame by the two ends of the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use catena_proto::call::{Answer, CallId};
use catena_proto::conversion::pipe;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::{limits, wire};
use tokio::time::Instant;

use crate::plan::retry::Trouble;

/// Bits of a request's name that name its cell; the rest count the cell's uses.
const CELL_BITS: u32 = 16;

/// Whether the connection takes requests.
#[derive(Clone, Debug)]
enum Phase {
    /// It is, or is about to be, there.
    Open,
    /// It is broken, and why.
    Down(Arc<str>),
}

/// A place in a connection's flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    cell: u32,
    uses: u32,
}

impl Ticket {
    const fn id(self) -> CallId {
        CallId::new(((self.uses as u64) << CELL_BITS) | self.cell as u64)
    }

    const fn of(id: u64) -> Self {
        Self {
            cell: (id & ((1 << CELL_BITS) - 1)) as u32,
            uses: (id >> CELL_BITS) as u32,
        }
    }
}

#[derive(Debug)]
struct Cell {
    uses: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Vacant,
    Waiting {
        sent: bool,
        deadline: Instant,
        waker: Waker,
    },
    Done(Result<Answer, Trouble>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flight {
    phase: Phase,
    /// Counts the connections that broke: the sending side of one must not take what is meant for the next.
    connection: u64,
    cells: Vec<Cell>,
    vacant: Vec<u32>,
    queue: VecDeque<(wire::Request, usize)>,
    queue_bytes: usize,
    writer: Option<Waker>,
    in_flight_max: usize,
    queue_bytes_max: usize,
    asked: u64,
}

impl Flight {
    pub(crate) fn new(in_flight_max: usize, queue_bytes_max: usize) -> Self {
        debug_assert!(in_flight_max <= 1 << CELL_BITS);
        Self {
            phase: Phase::Open,
            connection: 0,
            cells: Vec::new(),
            vacant: Vec::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            writer: None,
            in_flight_max,
            queue_bytes_max,
            asked: 0,
        }
    }

    /// Takes a request of `weight` bytes at most; its name is set here.
    ///
    /// # Errors
    /// [`Trouble::NotSent`] when the connection is down, [`Trouble::Full`] when it holds all it may.
    pub(crate) fn submit(
        &mut self,
        mut request: wire::Request,
        weight: usize,
        deadline: Instant,
        waker: &Waker,
    ) -> Result<Ticket, Trouble> {
        if let Phase::Down(why) = &self.phase {
            return Err(Trouble::NotSent(Arc::clone(why)));
        }
        if self.queue_bytes + weight > self.queue_bytes_max {
            let why = format!("{} bytes wait for one connection", self.queue_bytes);
            return Err(Trouble::Full(why.into()));
        }
        let state = State::Waiting {
            sent: false,
            deadline,
            waker: waker.clone(),
        };
        let cell = match self.vacant.pop() {
            Some(cell) => cell,
            None if self.cells.len() < self.in_flight_max => {
                let cell = self.cells.len() as u32;
                self.cells.push(Cell {
                    uses: 0,
                    state: State::Vacant,
                });
                cell
            }
            None => {
                let why = format!("{} requests are under way", self.in_flight_max);
                return Err(Trouble::Full(why.into()));
            }
        };
        let place = &mut self.cells[cell as usize];
        place.state = state;
        let ticket = Ticket {
            cell,
            uses: place.uses,
        };
        request.id = ticket.id().get();
        self.queue.push_back((request, weight));
        self.queue_bytes += weight;
        self.asked += 1;
        Ok(ticket)
    }

    /// The answer to a request, once; until then `waker` is called when it comes.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Result<Answer, Trouble>> {
        let Some(cell) = self.cell(ticket) else {
            // Only a caller that polls on after its answer gets here.
            return Poll::Ready(Err(Trouble::Silent));
        };
        if let State::Waiting { waker: held, .. } = &mut cell.state {
            held.clone_from(waker);
            return Poll::Pending;
        }
        let state = std::mem::replace(&mut cell.state, State::Vacant);
        self.vacate(ticket.cell);
        match state {
            State::Done(result) => Poll::Ready(result),
            State::Waiting { .. } | State::Vacant => Poll::Ready(Err(Trouble::Silent)),
        }
    }

    /// The caller went away: whatever still comes for it hits nothing.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        if let Some(cell) = self.cell(ticket) {
            cell.state = State::Vacant;
            self.vacate(ticket.cell);
        }
    }

    fn cell(&mut self, ticket: Ticket) -> Option<&mut Cell> {
        self.cells
            .get_mut(ticket.cell as usize)
            .filter(|cell| cell.uses == ticket.uses && !matches!(cell.state, State::Vacant))
    }

    fn vacate(&mut self, at: u32) {
        let cell = &mut self.cells[at as usize];
        cell.uses = cell.uses.wrapping_add(1);
        self.vacant.push(at);
    }

    /// Packs what is queued into one frame. Requests whose callers have gone or whose time has passed stay out.
    ///
    /// With nothing to send, `writer` is called when there is; `None` when `connection` is over.
    pub(crate) fn pack(
        &mut self,
        connection: u64,
        now: Instant,
        writer: &Waker,
    ) -> Poll<Option<Vec<wire::Request>>> {
        if connection != self.connection {
            return Poll::Ready(None);
        }
        let count = self.queue.len().min(limits::PIPE_FRAME_REQUESTS_MAX);
        let mut frame = Vec::with_capacity(count);
        let mut bytes = 0;
        while let Some((_, weight)) = self.queue.front() {
            bytes += *weight;
            if bytes > limits::PIPE_FRAME_BYTES_MAX || frame.len() == count {
                break;
            }
            let Some((mut request, weight)) = self.queue.pop_front() else {
                break;
            };
            self.queue_bytes -= weight;
            let Some(cell) = self.cell(Ticket::of(request.id)) else {
                continue;
            };
            let State::Waiting { sent, deadline, .. } = &mut cell.state else {
                continue;
            };
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                continue; // `expire` tells the caller.
            }
            *sent = true;
            request.timeout_ms = millis(left);
            frame.push(request);
        }
        if frame.is_empty() {
            match &mut self.writer {
                Some(held) => held.clone_from(writer),
                none => *none = Some(writer.clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(Some(frame))
    }

    /// The number of the present connection.
    pub(crate) const fn connection(&self) -> u64 {
        self.connection
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The one to wake after a request was submitted.
    pub(crate) const fn take_writer(&mut self) -> Option<Waker> {
        self.writer.take()
    }

    /// Hands out the answers of a frame. Those that nobody waits for any more are dropped.
    pub(crate) fn complete(&mut self, responses: Vec<wire::Response>, woken: &mut Vec<Waker>) {
        for response in responses {
            let Some(cell) = self.cell(Ticket::of(response.id)) else {
                continue;
            };
            let answer = pipe::answer(response.result).map_err(|error| {
                // What a newer node means by it is not known, nor whether it acted.
                let mut refusal = Refusal::new(Reason::Internal, error.to_string());
                refusal.indefinite = true;
                Trouble::Refused(Box::new(refusal))
            });
            finish(cell, answer, woken);
        }
    }

    /// The connection is gone: what was sent is lost, what was not goes elsewhere, and new requests are refused.
    pub(crate) fn break_down(&mut self, why: &Arc<str>, woken: &mut Vec<Waker>) {
        self.phase = Phase::Down(Arc::clone(why));
        self.connection += 1;
        self.queue.clear();
        self.queue_bytes = 0;
        for cell in &mut self.cells {
            if let State::Waiting { sent, .. } = cell.state {
                let trouble = if sent {
                    Trouble::Lost
                } else {
                    Trouble::NotSent
                };
                finish(cell, Err(trouble(Arc::clone(why))), woken);
            }
        }
        woken.extend(self.writer.take());
    }

    /// The connection is there again.
    pub(crate) fn open(&mut self) {
        self.phase = Phase::Open;
    }

    /// Ends the requests whose time has passed.
    pub(crate) fn expire(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        if self.vacant.len() == self.cells.len() {
            return;
        }
        for cell in &mut self.cells {
            if let State::Waiting { sent, deadline, .. } = cell.state
                && deadline <= now
            {
                let trouble = if sent {
                    Trouble::Silent
                } else {
                    Trouble::NotSent("the connection did not become free in time".into())
                };
                finish(cell, Err(trouble), woken);
            }
        }
    }

    /// Requests ever taken.
    pub(crate) const fn asked(&self) -> u64 {
        self.asked
    }
}

/// The first result counts: a node that answers twice changes nothing.
fn finish(cell: &mut Cell, result: Result<Answer, Trouble>, woken: &mut Vec<Waker>) {
    if !matches!(cell.state, State::Waiting { .. }) {
        return;
    }
    if let State::Waiting { waker, .. } = std::mem::replace(&mut cell.state, State::Done(result)) {
        woken.push(waker);
    }
}

/// In whole milliseconds, rounded up: zero would leave the deadline to the node.
fn millis(left: Duration) -> u32 {
    u32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "one reading of the clock to count from"
)]
mod tests {
    use bytes::Bytes;
    use catena_proto::call::Freshness;
    use catena_proto::op::Row;

    use super::*;

    struct Bench {
        flight: Flight,
        start: Instant,
    }

    impl Bench {
        fn new(in_flight_max: usize) -> Self {
            Self {
                flight: Flight::new(in_flight_max, 1 << 20),
                start: Instant::now(),
            }
        }

        fn submit(&mut self, weight: usize, ms: u64) -> Result<Ticket, Trouble> {
            let deadline = self.start + Duration::from_millis(ms);
            let request = wire::Request::default();
            self.flight.submit(request, weight, deadline, Waker::noop())
        }

        fn pack(&mut self, at_ms: u64) -> Vec<wire::Request> {
            let connection = self.flight.connection();
            let now = self.start + Duration::from_millis(at_ms);
            match self.flight.pack(connection, now, Waker::noop()) {
                Poll::Ready(frame) => frame.expect("the connection lives"),
                Poll::Pending => Vec::new(),
            }
        }

        fn answer(&mut self, id: u64, version: u64) {
            let row = Answer::Row {
                row: Row {
                    value: Bytes::new(),
                    version: catena_proto::ids::Seq::new(version),
                },
                freshness: Freshness::default(),
            };
            let response = pipe::response(CallId::new(id), row);
            self.flight.complete(vec![response], &mut Vec::new());
        }

        fn result(&mut self, ticket: Ticket) -> Option<Result<u64, Trouble>> {
            match self.flight.poll(ticket, Waker::noop()) {
                Poll::Ready(Ok(Answer::Row { row, .. })) => Some(Ok(row.version.get())),
                Poll::Ready(Ok(other)) => panic!("{other:?}"),
                Poll::Ready(Err(trouble)) => Some(Err(trouble)),
                Poll::Pending => None,
            }
        }
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_user_of_the_cell() {
        let mut bench = Bench::new(1);
        let first = bench.submit(1, 100).expect("room");
        let sent = bench.pack(0);
        bench.flight.cancel(first);
        let second = bench.submit(1, 100).expect("room again");
        bench.answer(sent[0].id, 1);
        assert_eq!(bench.result(second), None);
        let id = bench.pack(0)[0].id;
        bench.answer(id, 2);
        bench.answer(id, 3);
        assert_eq!(bench.result(second), Some(Ok(2)));
    }

    #[test]
    fn a_break_tells_what_was_sent_from_what_was_not() {
        let mut bench = Bench::new(8);
        let sent = bench.submit(1, 100).expect("room");
        assert_eq!(bench.pack(0).len(), 1);
        let queued = bench.submit(1, 100).expect("room");
        let old = bench.flight.connection();
        let why = Arc::from("reset");
        bench.flight.break_down(&why, &mut Vec::new());
        assert_eq!(bench.result(sent), Some(Err(Trouble::Lost(why.clone()))));
        assert_eq!(
            bench.result(queued),
            Some(Err(Trouble::NotSent(why.clone())))
        );
        let refused = bench.submit(1, 100).map(drop);
        assert_eq!(refused, Err(Trouble::NotSent(why)));
        bench.flight.open();
        bench.submit(1, 100).expect("it is there again");
        let stray = bench.flight.pack(old, bench.start, Waker::noop());
        assert!(
            matches!(stray, Poll::Ready(None)),
            "the old sending side ends"
        );
        assert_eq!(bench.pack(0).len(), 1);
    }

    #[test]
    fn what_expired_in_the_queue_is_not_sent_and_certainly_failed() {
        let mut bench = Bench::new(8);
        let late = bench.submit(1, 10).expect("room");
        let good = bench.submit(1, 100).expect("room");
        let frame = bench.pack(10);
        assert_eq!(frame.len(), 1);
        assert_eq!(frame[0].timeout_ms, 90);
        let now = bench.start + Duration::from_millis(10);
        bench.flight.expire(now, &mut Vec::new());
        assert!(matches!(bench.result(late), Some(Err(Trouble::NotSent(_)))));
        assert_eq!(bench.result(good), None);
        let now = bench.start + Duration::from_millis(100);
        bench.flight.expire(now, &mut Vec::new());
        assert_eq!(bench.result(good), Some(Err(Trouble::Silent)));
    }

    #[test]
    fn a_frame_and_the_queue_keep_their_bounds() {
        let mut bench = Bench::new(8);
        let weight = 100 << 10;
        for _ in 0..8 {
            bench.submit(weight, 100).expect("room");
        }
        assert!(matches!(bench.submit(1, 100), Err(Trouble::Full(_))));
        assert_eq!(bench.pack(0).len(), 2, "256 KiB a frame");
        let mut bench = Bench::new(100);
        for _ in 0..10 {
            bench.submit(weight, 100).expect("room");
        }
        assert!(matches!(bench.submit(weight, 100), Err(Trouble::Full(_))));
    }
}
