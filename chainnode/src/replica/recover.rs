//! A start: what log and state hold becomes a replica again, or is found not to fit (L5, FAULTS 6, 12); and the
//! three ways in which a log changes other than by a new record.

use std::collections::{BTreeMap, VecDeque};

use catena_proto::ids::{Origin, Seq};
use catena_proto::message::OriginSpan;
use catena_proto::record::{Group, ORIGIN_NONE, Record};
use catena_proto::time::Mono;

use super::debt::Debts;
use super::head::LogClock;
use super::lease::Lease;
use super::log::{self, LogWindow, Origins};
use super::overlay::Overlay;
use super::sessions::Sessions;
use super::{Event, Identity, LeaseSettings, MetaNo, Mutant, Outputs, Persist, Recovered, Replica};

impl Replica {
    /// A replica as a starting process finds it: `Recovered::default()` on a disk that never held it.
    ///
    /// The recovered log must have been made durable already (rule L5).
    pub fn recover(
        id: Identity,
        settings: LeaseSettings,
        recovered: Recovered,
        now: Mono,
        out: &mut Outputs,
    ) -> Self {
        Self::recover_planted(id, settings, recovered, None, now, out)
    }

    /// As [`Replica::recover`], with a bug planted on purpose in builds with the `mutants` feature; others ignore it.
    pub fn recover_planted(
        id: Identity,
        settings: LeaseSettings,
        recovered: Recovered,
        mutant: Option<Mutant>,
        now: Mono,
        out: &mut Outputs,
    ) -> Self {
        #[cfg(not(feature = "mutants"))]
        let _ = mutant;
        let Recovered {
            meta,
            state,
            sessions,
            ..
        } = &recovered;
        let (meta, state, sessions) = (meta.clone(), state.clone(), sessions.clone());
        let log = LogWindow::new(
            state.applied,
            state.applied,
            Origins::new(Vec::new(), Seq::ZERO),
            recovered.generation,
        );
        let mut replica = Self {
            id,
            settings,
            started: now,
            chain: meta.as_ref().map(|m| m.chain.clone()),
            chain_at_start: meta.as_ref().map(|m| m.chain.clone()),
            meta_durable: meta.clone(),
            meta,
            meta_in_flight: VecDeque::new(),
            meta_no: MetaNo::default(),
            learn: false,
            follow_attempt: 0,
            log,
            // L5: commit = the persisted applied position, never durable.
            commit: state.applied,
            applying: state.applied,
            flushed: if state.scan.is_none() {
                state.applied
            } else {
                Seq::ZERO
            },
            overlay: Overlay::new(state.applied),
            sessions: Sessions::new(sessions),
            scan_needed: false,
            barrier: None,
            in_sync: false,
            up: None,
            down: Vec::new(),
            links_made: 0,
            pins: BTreeMap::new(),
            lease: Lease::default(),
            promises: Vec::new(),
            debts: Debts::default(),
            announced: BTreeMap::new(),
            unheard: Vec::new(),
            announce_until: Mono::ZERO,
            refused: BTreeMap::new(),
            clock: LogClock::new(state.log_time, now),
            state,
            waiters: VecDeque::new(),
            read_only: false,
            armed: [None; 3],
            #[cfg(feature = "mutants")]
            mutant,
        };
        replica.take_in_log(recovered, out);
        if let Some(mut meta) = replica.meta.take() {
            replica.give_up_void_data(&mut meta);
            replica.meta = Some(meta.clone());
            replica.meta_durable = Some(meta);
        }
        replica.start_epoch(now, out);
        replica.settle(now, out);
        replica
    }

    /// Replays the recovered log, or finds out that it cannot be used (FAULTS 6, 12).
    fn take_in_log(&mut self, recovered: Recovered, out: &mut Outputs) {
        let applied = self.state.applied;
        let Recovered {
            log_start,
            log_end,
            mut origins,
            groups,
            generation,
            mut damage,
            ..
        } = recovered;
        let known = self
            .state
            .applied_origin
            .or((applied == Seq::ZERO).then_some(ORIGIN_NONE));
        if log_start <= applied && applied <= log_end {
            origins.retain(|s| s.first <= applied);
            if let Some(origin) = known
                && origins.is_empty()
                && applied > Seq::ZERO
            {
                origins.push(OriginSpan {
                    origin,
                    first: applied,
                });
            }
            let origins = Origins::new(origins, log_start);
            self.log = LogWindow::new(log_start, applied, origins, generation);
            for group in &groups {
                let whole = log::slice(group, self.log.last(), log_end)
                    .filter(|g| g.first == self.log.last().next())
                    .and_then(|g| Some((g.decode().ok()?, g)));
                match whole {
                    Some((records, group)) => self.take_in(group, records),
                    None => break,
                }
            }
            // L5: the recovered log was synced before this replica was made.
            self.log.all_durable();
            let end = self.log.last();
            if end < log_end {
                damage.get_or_insert_with(|| format!("the log is not whole after {end}"));
            }
            if damage.is_some() {
                // What may still lie on the disk behind this position is void.
                self.cut_log(end, out);
            }
        } else {
            damage.get_or_insert_with(|| {
                format!("the log holds {log_start}..{log_end}, the state is at {applied}")
            });
            match known {
                Some(origin) if self.state.scan.is_none() => self.reset_log(applied, origin, out),
                _ => self.scan_needed = true,
            }
        }
        if let Some(what) = damage {
            out.events.push(Event::Damaged { what });
            self.lose_sync(out);
        }
        if self.planted(Mutant::CommitIsDurableOnStart) {
            self.commit = self.log.last();
        }
    }

    /// Adds a decoded group to the end of the log, the overlay and the sessions.
    pub(super) fn take_in(&mut self, group: Group, records: Vec<(Seq, Record)>) {
        for (seq, record) in records {
            self.sessions.add(seq, &record);
            self.clock.saw(record.at);
            for effect in record.effects {
                self.overlay.add(seq, effect);
            }
        }
        self.log.append(group);
    }

    /// Drops the log's end after `after`, and all that hung on it (rules L2, L3).
    pub(super) fn cut_log(&mut self, after: Seq, out: &mut Outputs) {
        let from = self.log.last();
        self.log.cut(after);
        self.overlay.cut(after);
        self.sessions.cut(after);
        // S2: a head that lost its end has taken back what an earlier handshake told of it.
        self.barrier = self.barrier.map(|barrier| barrier.min(after));
        out.persist.push(Persist::Cut {
            after,
            generation: self.log.generation(),
        });
        out.events.push(Event::LogCut { from, to: after });
    }

    /// Starts the log anew behind `base` (a scan, or a log that no longer fits the state).
    pub(super) fn reset_log(&mut self, base: Seq, origin: Origin, out: &mut Outputs) {
        self.log.reset(base, origin);
        self.overlay = Overlay::new(base);
        self.sessions.cut(base);
        out.persist.push(Persist::Reset {
            base,
            origin,
            generation: self.log.generation(),
        });
    }
}
