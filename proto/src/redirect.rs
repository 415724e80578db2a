//! What a master says to whom it cannot serve: where the leader is, or why a change is refused.
//!
//! These travel as gRPC status with an `ErrorInfo` of [`ERROR_DOMAIN`]; the
//! data plane's refusals are in `errors`.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetail, ErrorInfo, RetryInfo, StatusExt};

use crate::errors::ERROR_DOMAIN;

/// The reason of a master that is not the leader.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The reason of a change that a rule, or the state, forbids.
pub const CHANGE_REFUSED: &str = "CHANGE_REFUSED";
/// The reason of a request that names a chain or node that is not there.
pub const NO_SUCH: &str = "NO_SUCH";
const LEADER_ADDR: &str = "leader_addr";
/// A leader is chosen within this time as a rule; come again then.
const ELECTION: Duration = Duration::from_millis(300);

fn status(code: Code, message: String, reason: &str, leader: Option<&str>) -> Status {
    let mut metadata = HashMap::default();
    if let Some(addr) = leader {
        metadata.insert(LEADER_ADDR.to_owned(), addr.to_owned());
    }
    let mut details = vec![ErrorDetail::ErrorInfo(ErrorInfo::new(
        reason,
        ERROR_DOMAIN,
        metadata,
    ))];
    if reason == NOT_LEADER {
        details.push(RetryInfo::new(Some(ELECTION)).into());
    }
    Status::with_error_details_vec(code, message, details)
}

/// "Ask the leader", with its gRPC address if it is known.
#[must_use]
pub fn not_leader(leader: Option<&str>) -> Status {
    let message = match leader {
        Some(addr) => format!("this master is not the leader: ask {addr}"),
        None => "the masters have no leader yet: ask again".to_owned(),
    };
    status(Code::FailedPrecondition, message, NOT_LEADER, leader)
}

/// A rule or the state forbids the change; nothing was changed.
#[must_use]
pub fn change_refused(why: impl Into<String>) -> Status {
    status(Code::FailedPrecondition, why.into(), CHANGE_REFUSED, None)
}

/// There is no such chain, node or master.
#[must_use]
pub fn no_such(what: impl Into<String>) -> Status {
    status(Code::NotFound, what.into(), NO_SUCH, None)
}

/// The reason of a status of this kind, if it is one of ours.
#[must_use]
pub fn reason_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == ERROR_DOMAIN).then_some(info.reason)
}

/// Where a master that is not the leader sends us: `Some(None)` when it knows no leader, `None` when the status
/// says something else.
#[must_use]
pub fn leader_of(status: &Status) -> Option<Option<String>> {
    let info = status.get_details_error_info()?;
    if info.domain != ERROR_DOMAIN || info.reason != NOT_LEADER {
        return None;
    }
    Some(info.metadata.get(LEADER_ADDR).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaders_address_travels_in_a_status() {
        let said = not_leader(Some("a:1"));
        assert_eq!(leader_of(&said), Some(Some("a:1".to_owned())));
        assert_eq!(leader_of(&not_leader(None)), Some(None));
        assert_eq!(leader_of(&change_refused("M2")), None);
        assert_eq!(
            reason_of(&change_refused("M2")).as_deref(),
            Some(CHANGE_REFUSED)
        );
        assert_eq!(reason_of(&Status::internal("x")), None);
    }
}
