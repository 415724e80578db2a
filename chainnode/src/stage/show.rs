//! How a stage's messages and events read in a transcript.

use catena_proto::message::{Body, Message, Round};

use crate::replica::Event;

fn round(round: Option<Round>) -> String {
    round.map_or(String::new(), |r| {
        format!(" round={}@{}", r.no, r.incarnation)
    })
}

pub(super) fn message(message: &Message) -> String {
    let body = match &message.body {
        Body::Hello(h) => format!(
            "Hello link={}.{}{} holds={}..{} commit={}",
            h.link.incarnation,
            h.link.no,
            if h.learner { " learner" } else { "" },
            h.retained_after,
            h.last,
            h.commit
        ),
        Body::Welcome(w) => format!(
            "Welcome link={}.{} after={}{}",
            w.link.incarnation,
            w.link.no,
            w.resume_after,
            if w.scan_wanted { " scan" } else { "" }
        ),
        Body::Forward(f) => {
            let records = match (f.groups.first(), f.groups.last()) {
                (Some(a), Some(b)) => format!(" records={}..{}", a.first, b.last),
                _ => String::new(),
            };
            let done = f
                .completed
                .map_or(String::new(), |r| format!(" completed={}", r.no));
            format!(
                "Forward{records} watermark={}{}{done}",
                f.watermark,
                round(f.round)
            )
        }
        Body::Commit(c) => {
            format!(
                "Commit commit={} received={}{}",
                c.commit,
                c.received,
                round(c.round)
            )
        }
        Body::Announce { reply_wanted } => {
            format!("Announce{}", if *reply_wanted { " reply" } else { "" })
        }
        Body::Refuse(chain) => format!("Refuse holds=e{}", chain.epoch),
        Body::Follow { .. } => "Follow".to_owned(),
        Body::PullPage(p) => format!("PullPage {}", p.page_no),
        Body::StatePage(p) => format!(
            "StatePage {} rows={} at={}",
            p.page_no,
            p.rows.len(),
            p.applied
        ),
        Body::Unlink { link } => format!("Unlink link={}.{}", link.incarnation, link.no),
        Body::Fork { at, .. } => format!("Fork after {at}"),
    };
    format!("e{} {body}", message.epoch)
}

pub(super) fn event(event: &Event) -> String {
    match event {
        Event::EpochEntered { epoch } => format!("is in epoch {epoch}"),
        Event::ConfigRefused(error) => format!("refuses a config: {error}"),
        Event::InSync {
            epoch,
            joined_epoch,
        } => {
            format!("is in sync in epoch {epoch} (stint from {joined_epoch})")
        }
        Event::DebtsPaid { epoch } => format!("owes nothing in epoch {epoch}"),
        Event::LogCut { from, to } => format!("cuts its log from {from} to {to}"),
        Event::LinkUp { to, learner } => {
            format!(
                "has a link to {to}{}",
                if *learner { " (learner)" } else { "" }
            )
        }
        Event::Scan { done: false } => "copies the state".to_owned(),
        Event::Scan { done: true } => "has copied the state".to_owned(),
        Event::PeerRefused { from, why } => format!("refuses {from}: {why}"),
        Event::Fenced { evidence } => format!("STOPS: {evidence}"),
        Event::Unfenced { evidence } => format!("is fenced no more: {evidence}"),
        Event::Damaged { what } => format!("is damaged: {what}"),
    }
}
