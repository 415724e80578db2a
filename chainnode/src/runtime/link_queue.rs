//! What waits for one fellow, and the stream that the transport takes it from, frame by frame.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use catena_proto::conversion::chain::LinkOpen;
use catena_proto::message::{Body, Message};
use catena_proto::record::Group;
use catena_proto::{limits, wire};
use futures::Stream;
use parking_lot::Mutex;

/// Bytes that wait for a stream; more means that the fellow does not keep up, and its links begin anew.
/// A window's worth of records, and the page of a scan.
const BYTES_MAX: usize = 2 * limits::FORWARD_WINDOW_BYTES_MAX;
/// Messages that wait for a stream.
const MESSAGES_MAX: usize = 100_000;
/// Messages that wait while there is no stream: handshakes that are worth sending at once when it is there.
const MESSAGES_UNCONNECTED_MAX: usize = 1_000;

/// The messages for one fellow.
#[derive(Debug, Default)]
pub(crate) struct LinkQueue(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(Message, usize)>,
    bytes: usize,
    /// The number of the present stream; `None` while there is none.
    stream: Option<u64>,
    streams_made: u64,
    /// Something was dropped since the fellow was last told from the beginning.
    lost: bool,
    ended: bool,
    /// Something was sent since the last beat.
    busy: bool,
    /// An empty frame is due.
    beat: bool,
    writer: Option<Waker>,
}

impl Queue {
    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
        self.beat = false;
    }

    fn break_down(&mut self) -> Option<Waker> {
        self.clear();
        self.stream = None;
        self.writer.take()
    }
}

impl LinkQueue {
    /// Adds messages; false if the fellow does not keep up: its stream is broken then, and everything is lost.
    pub(crate) fn push(&self, messages: Vec<Message>) -> bool {
        let mut queue = self.0.lock();
        for message in messages {
            let weight = weight(&message);
            queue.bytes += weight;
            queue.messages.push_back((message, weight));
        }
        let (connected, count) = (queue.stream.is_some(), queue.messages.len());
        let fits = match connected {
            true => queue.bytes <= BYTES_MAX && count <= MESSAGES_MAX,
            false => {
                queue.bytes <= limits::LINK_FRAME_BYTES_MAX && count <= MESSAGES_UNCONNECTED_MAX
            }
        };
        let woken = if fits {
            queue.writer.take()
        } else {
            queue.lost = true;
            queue.break_down()
        };
        drop(queue);
        if let Some(writer) = woken {
            writer.wake();
        }
        // Without a stream, the loss is told when there is one.
        fits || !connected
    }

    /// A stream is there. True if something was lost before it: the links begin anew.
    pub(crate) fn connect(self: &Arc<Self>, open: LinkOpen) -> (Frames, bool) {
        let mut queue = self.0.lock();
        queue.streams_made += 1;
        queue.stream = Some(queue.streams_made);
        let frames = Frames {
            queue: Arc::clone(self),
            stream: queue.streams_made,
            opening: Some(open),
        };
        (frames, std::mem::take(&mut queue.lost))
    }

    /// The stream is gone, and what was on it.
    pub(crate) fn disconnect(&self) {
        let woken = self.0.lock().break_down();
        if let Some(writer) = woken {
            writer.wake();
        }
    }

    /// Sends an empty frame if nothing else was sent since the last beat, and nothing waits.
    pub(crate) fn beat(&self) {
        let mut queue = self.0.lock();
        if std::mem::take(&mut queue.busy) || !queue.messages.is_empty() {
            return;
        }
        queue.beat = true;
        let woken = queue.writer.take();
        drop(queue);
        if let Some(writer) = woken {
            writer.wake();
        }
    }

    /// Nobody will send to this fellow at this address any more.
    pub(crate) fn end(&self) {
        let mut queue = self.0.lock();
        queue.ended = true;
        let woken = queue.break_down();
        drop(queue);
        if let Some(writer) = woken {
            writer.wake();
        }
    }

    /// Whether [`LinkQueue::end`] was called.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.lock().ended
    }
}

/// The frames of one stream.
#[derive(Debug)]
pub(crate) struct Frames {
    queue: Arc<LinkQueue>,
    stream: u64,
    opening: Option<LinkOpen>,
}

impl Stream for Frames {
    type Item = wire::LinkFrame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut frame = wire::LinkFrame::default();
        if let Some(open) = this.opening.take() {
            frame.open = Some(open.into());
            return Poll::Ready(Some(frame));
        }
        let packed = {
            let mut queue = this.queue.0.lock();
            if queue.stream != Some(this.stream) {
                return Poll::Ready(None);
            }
            if queue.messages.is_empty() && std::mem::take(&mut queue.beat) {
                return Poll::Ready(Some(frame));
            }
            if queue.messages.is_empty() {
                queue.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let mut bytes = 0;
            let fits = queue.messages.iter().take_while(|(_, weight)| {
                bytes += weight;
                bytes <= limits::LINK_FRAME_BYTES_TARGET
            });
            // A frame takes at least one message.
            let count = fits.count().max(1);
            let packed: Vec<_> = queue.messages.drain(..count).collect();
            (queue.busy, queue.beat) = (true, false);
            queue.bytes -= packed.iter().map(|(_, weight)| weight).sum::<usize>();
            packed
        };
        // Checksums are made here, without the lock.
        frame.messages = packed.into_iter().map(|(m, _)| m.into()).collect();
        Poll::Ready(Some(frame))
    }
}

/// Bytes that a message takes in queues and frames, roughly.
pub(crate) fn weight(message: &Message) -> usize {
    const FIXED: usize = 96;
    FIXED
        + match &message.body {
            Body::Forward(forward) => forward.groups.iter().map(Group::weight).sum(),
            Body::StatePage(page) => {
                let rows = page.rows.iter().map(|r| r.key.len() + r.value.len() + 32);
                let slots = page.sessions.iter().map(|s| 32 + 64 * s.slots.len());
                rows.chain(slots).sum()
            }
            Body::Hello(hello) => 32 * hello.origins.len(),
            Body::Fork { evidence, .. } => evidence.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catena_proto::ids::{ClusterId, DiskId, Epoch, Incarnation, NodeId, ShardId};
    use futures::{FutureExt, StreamExt};

    const OPEN: LinkOpen = LinkOpen {
        cluster: ClusterId::new(1),
        node: NodeId::new(1),
        disk: DiskId::new(1),
        incarnation: Incarnation::new(1),
        to: NodeId::new(2),
    };

    fn message(evidence: usize) -> Message {
        let link = catena_proto::ids::LinkId {
            incarnation: Incarnation::new(1),
            no: 1,
        };
        Message {
            shard: ShardId::new(1),
            epoch: Epoch::new(1),
            body: Body::Fork {
                link,
                at: catena_proto::ids::Seq::ZERO,
                evidence: "x".repeat(evidence),
            },
        }
    }

    fn next(frames: &mut Frames) -> Option<Option<usize>> {
        let frame = frames.next().now_or_never()?;
        Some(frame.map(|f| f.messages.len()))
    }

    #[test]
    fn what_waits_shares_frames_up_to_their_size() {
        let queue = Arc::new(LinkQueue::default());
        assert!(queue.push(vec![message(1), message(2)]));
        let (mut frames, lost) = queue.connect(OPEN);
        assert!(!lost, "what waited for the stream is sent");
        assert_eq!(next(&mut frames), Some(Some(0)), "the opening goes alone");
        assert_eq!(next(&mut frames), Some(Some(2)));
        assert_eq!(next(&mut frames), None);
        let large = limits::LINK_FRAME_BYTES_TARGET - 200;
        assert!(queue.push(vec![message(large), message(large), message(3 * large)]));
        for _ in 0..3 {
            assert_eq!(next(&mut frames), Some(Some(1)));
        }
    }

    #[test]
    fn a_fellow_that_does_not_keep_up_loses_its_stream_and_is_told_from_the_beginning() {
        let queue = Arc::new(LinkQueue::default());
        let (mut frames, _) = queue.connect(OPEN);
        assert_eq!(next(&mut frames), Some(Some(0)));
        assert!(!queue.push(vec![message(BYTES_MAX)]));
        assert_eq!(next(&mut frames), Some(None), "the stream ends");
        assert!(queue.push(vec![message(1)]));
        let (mut frames, lost) = queue.connect(OPEN);
        assert!(lost);
        assert_eq!(
            (next(&mut frames), next(&mut frames)),
            (Some(Some(0)), Some(Some(1)))
        );
    }

    #[test]
    fn without_a_stream_only_a_little_waits_and_the_loss_is_told_later() {
        let queue = Arc::new(LinkQueue::default());
        for _ in 0..=MESSAGES_UNCONNECTED_MAX {
            assert!(queue.push(vec![message(1)]));
        }
        assert!(queue.connect(OPEN).1);
    }
}
