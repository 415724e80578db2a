//! The session of one shard, shared by the writes under way.

use std::pin::pin;
use std::sync::Arc;

use catena_proto::ids::SessionId;
use catena_proto::op::RequestId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::plan::session::{NoName, SessionPlan};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    plan: Mutex<SessionPlan>,
    freed: Notify,
    /// Held by the one who opens a session; the others wait for it to do so.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

/// A write's name; its slot is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Name {
    sessions: Arc<Sessions>,
    pub(crate) request: RequestId,
}

impl Sessions {
    /// A name for a write, waiting for a slot if all are in use; `None` without a session.
    pub(crate) async fn name(self: &Arc<Self>) -> Option<Name> {
        match self.name_now() {
            Ok(name) => Some(name),
            Err(NoName::NoSession) => None,
            Err(NoName::NoSlot) => self.wait_for_name().await,
        }
    }

    async fn wait_for_name(self: &Arc<Self>) -> Option<Name> {
        loop {
            // In line before looking: a slot that is given back in between wakes somebody.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.name_now() {
                Ok(name) => return Some(name),
                Err(NoName::NoSession) => return None,
                Err(NoName::NoSlot) => freed.await,
            }
        }
    }

    fn name_now(self: &Arc<Self>) -> Result<Name, NoName> {
        let request = self.plan.lock().take()?;
        let sessions = Arc::clone(self);
        Ok(Name { sessions, request })
    }

    /// The open session.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.plan.lock().session()
    }

    /// A session was opened.
    pub(crate) fn opened(&self, session: SessionId) {
        self.plan.lock().opened(session);
    }

    /// A node does not know this session any more. Those that wait for one of its slots look again.
    pub(crate) fn lost(&self, session: SessionId) {
        self.plan.lock().lost(session);
        self.freed.notify_waiters();
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.sessions.plan.lock().give_back(self.request);
        self.sessions.freed.notify_one();
    }
}
