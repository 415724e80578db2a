//! One connection to a node: requests and answers in batched frames.
//!
//! Callers put requests into the flight and wake the sending side, which packs
//! whatever is queued when the socket is free into one frame: no timer, and the
//! busier the connection, the fuller its frames. The receiving side hands out a
//! frame of answers under one lock.

mod connection;
mod flight;
mod frames;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use catena_proto::call::Answer;
use catena_proto::wire;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use connection::{Dial, keep_connected, root};
use flight::{Flight, Ticket};

use crate::Options;
use crate::plan::retry::Trouble;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pipe {
    flight: Mutex<Flight>,
    /// A copy of the flight's phase that is read without its lock.
    down: AtomicBool,
    /// Somebody keeps it connected.
    started: AtomicBool,
    /// Somebody wanted this connection since it was last tried.
    wanted: AtomicBool,
    wanting: Notify,
}

impl Pipe {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            flight: Mutex::new(Flight::new(options.in_flight_max, options.queue_bytes_max)),
            down: AtomicBool::new(false),
            started: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            wanting: Notify::new(),
        }
    }

    /// Sends a request of at most `weight` bytes; its id and time-out are set on the way.
    pub(crate) fn call(
        &self,
        request: wire::Request,
        weight: usize,
        deadline: Instant,
    ) -> Call<'_> {
        Call {
            pipe: self,
            deadline,
            weight,
            stage: Stage::New(request),
        }
    }

    /// Whether requests are refused because the connection is broken.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Whether somebody keeps it connected.
    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Somebody keeps it connected from now on.
    pub(crate) fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Says that the connection is worth being made again.
    pub(crate) fn want(&self) {
        if !self.wanted.swap(true, Ordering::Relaxed) {
            self.wanting.notify_one();
        }
    }

    /// Ends the requests whose time has passed.
    pub(crate) fn expire(&self, now: Instant) {
        self.act(|flight, woken| flight.expire(now, woken));
    }

    /// Requests ever sent this way.
    pub(crate) fn asked(&self) -> u64 {
        self.flight.lock().asked()
    }

    fn break_down(&self, why: &Arc<str>) {
        self.down.store(true, Ordering::Relaxed);
        self.act(|flight, woken| flight.break_down(why, woken));
    }

    fn open(&self) {
        self.flight.lock().open();
        self.down.store(false, Ordering::Relaxed);
    }

    /// Callers are woken after the lock is given back, so that they do not run into it.
    fn act(&self, change: impl FnOnce(&mut Flight, &mut Vec<Waker>)) {
        let mut woken = Vec::new();
        change(&mut self.flight.lock(), &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A request under way. Dropping it gives up waiting, not what was sent.
#[derive(Debug)]
#[must_use = "a call is sent when it is polled"]
pub(crate) struct Call<'a> {
    pipe: &'a Pipe,
    deadline: Instant,
    weight: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New(wire::Request),
    Waiting(Ticket),
    Over,
}

impl Future for Call<'_> {
    type Output = Result<Answer, Trouble>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let waker = context.waker();
        match std::mem::replace(&mut this.stage, Stage::Over) {
            Stage::New(request) => {
                let mut flight = this.pipe.flight.lock();
                let ticket = match flight.submit(request, this.weight, this.deadline, waker) {
                    Ok(ticket) => ticket,
                    Err(trouble) => return Poll::Ready(Err(trouble)),
                };
                let writer = flight.take_writer();
                drop(flight);
                this.stage = Stage::Waiting(ticket);
                if let Some(writer) = writer {
                    writer.wake();
                }
                Poll::Pending
            }
            Stage::Waiting(ticket) => {
                let polled = this.pipe.flight.lock().poll(ticket, waker);
                if polled.is_pending() {
                    this.stage = Stage::Waiting(ticket);
                }
                polled
            }
            Stage::Over => Poll::Ready(Err(Trouble::Silent)),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Stage::Waiting(ticket) = self.stage {
            self.pipe.flight.lock().cancel(ticket);
        }
    }
}
