//! Whether this master leads, with a state that is caught up.
//!
//! Raft's word that it leads is not enough. A new leader's state may lack what
//! the old one committed: the barrier of a linearizable read makes sure that it
//! does not. And a leader that is cut off hears of its end last: one that no
//! majority answers stops to count itself as one (an old leader acts on nothing
//! in any case, since its commands need that majority).

use openraft::metrics::RaftMetrics;
use openraft::{Raft, ServerState};
use tokio::sync::watch;

use super::fatal::{Alarm, Fatal};
use super::timing::{BARRIER_RETRY, QUORUM_SILENCE_MAX};
use super::types::{MasterNode, MasterRaft, Term};
use catena_proto::ids::MasterId;

type Metrics = RaftMetrics<MasterId, MasterNode>;

/// The term in which this master leads by Raft's word, answered by a majority.
fn leads(metrics: &Metrics) -> Option<Term> {
    let silence = metrics.millis_since_quorum_ack?;
    let answered = u128::from(silence) <= QUORUM_SILENCE_MAX.as_millis();
    let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
    (answered && leads).then(|| Term::new(metrics.current_term))
}

/// Keeps the signal true until Raft ends.
pub(super) async fn watch(
    raft: Raft<MasterRaft>,
    leadership: watch::Sender<Option<Term>>,
    alarm: Alarm,
) {
    let mut metrics = raft.metrics();
    loop {
        let (term, ended) = {
            let metrics = metrics.borrow_and_update();
            (leads(&metrics), metrics.running_state.clone().err())
        };
        if let Some(why) = ended {
            leadership.send_replace(None);
            if !matches!(why, openraft::error::Fatal::Stopped) {
                // If storage was the reason, it was reported before, and that counts.
                alarm.raise(Fatal::Raft {
                    why: why.to_string(),
                });
            }
            return;
        }
        let said = *leadership.borrow();
        if term.is_none() || term != said {
            leadership.send_if_modified(|said| said.take().is_some());
        }
        let Some(term) = term.filter(|_| term != said) else {
            if metrics.changed().await.is_err() {
                leadership.send_replace(None);
                return;
            }
            continue;
        };
        match raft.ensure_linearizable().await {
            // Whether it still leads in that term is seen in the next turn.
            Ok(_) if leads(&metrics.borrow()) == Some(term) => {
                leadership.send_replace(Some(term));
            }
            Ok(_) => {}
            Err(why) => {
                tracing::debug!(%why, %term, "not a leader yet");
                tokio::time::sleep(BARRIER_RETRY).await;
            }
        }
    }
}
