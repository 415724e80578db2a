//! Configs: acceptance, entering an epoch, announcements, refusals, fencing (rules C, R3, R4).

use catena_proto::config::{Acceptance, ChainConfig, ChainPhase, ConfigError, accept_chain};
use catena_proto::ids::{Epoch, NodeId, Seq};
use catena_proto::limits;
use catena_proto::message::{Body, Round};
use catena_proto::time::Mono;

use super::debt::Promise;
use super::lease::{self, Lease};
use super::{Event, Meta, MetaNo, Mutant, Outputs, Persist, Replica};

/// A fellow is told our config at most this often for the same epoch.
const REFUSE_EVERY: std::time::Duration = std::time::Duration::from_millis(20);

impl Replica {
    /// C1, C2: the one point where a chain config is accepted, whatever its source.
    pub(super) fn on_config(&mut self, now: Mono, chain: ChainConfig, out: &mut Outputs) {
        if chain.shard != self.id.shard {
            let why = format!("it was handed to the replica of shard {}", self.id.shard);
            let error = ConfigError::Chain {
                shard: chain.shard,
                why,
            };
            out.events.push(Event::ConfigRefused(error));
            return;
        }
        // What was asked to be persisted counts as held: a second offer meets it.
        let held = self.meta.as_ref().map(|m| &m.chain);
        let verdict = match accept_chain(held, &chain) {
            Err(ConfigError::StaleEpoch { .. }) if self.planted(Mutant::OlderConfigAccepted) => {
                Ok(Acceptance::Newer)
            }
            verdict => verdict,
        };
        match verdict {
            Ok(Acceptance::Same) => {}
            Ok(Acceptance::Newer) => {
                let mut meta = match self.meta.take() {
                    Some(meta) => {
                        let mut meta = Meta { chain, ..meta };
                        self.obey_decree(&mut meta, out);
                        meta
                    }
                    None => Meta {
                        // An empty replica descends from whatever there was.
                        descends: chain.recovered,
                        chain,
                        synced_for: None,
                        paid: Epoch::ZERO,
                        fenced: None,
                    },
                };
                // A replica that never was has nothing to be chosen for (M3).
                self.give_up_void_data(&mut meta);
                self.persist_meta(meta, out);
                if self.planted(Mutant::ConfigBeforePersist) {
                    self.enter_persisted_epoch(now, out);
                }
            }
            Err(error) => {
                out.events.push(Event::ConfigRefused(error.clone()));
                if matches!(error, ConfigError::Conflict { .. }) {
                    self.fence(error.to_string(), out);
                }
            }
        }
    }

    /// M3: an operator chose whose data counts. The chosen member is in sync by decree, once, with what it has; it is
    /// persisted with the very config, so no later start can take a loss of its own for one that was accepted.
    /// Whoever missed it, or was not chosen, has data of a history that is over: it is copied anew.
    fn obey_decree(&mut self, meta: &mut Meta, out: &mut Outputs) {
        let chosen = meta
            .chain
            .decreed()
            .filter(|m| m.node == self.id.node && m.disk == self.id.disk);
        let whole = !self.scan_needed && self.state.scan.is_none();
        if let Some(member) = chosen.filter(|_| whole) {
            meta.synced_for = Some((member.disk, member.joined_epoch));
            meta.descends = meta.chain.recovered;
            if let Some(evidence) = meta.fenced.take() {
                out.events.push(Event::Unfenced { evidence });
            }
        }
    }

    /// M3: a copy is whole: from here on log and state descend from the recovery of the epoch in force.
    pub(super) fn take_descent(&mut self, out: &mut Outputs) {
        if let Some(recovered) = self.chain.as_ref().map(|c| c.recovered) {
            self.change_meta(out, |meta| meta.descends = recovered);
        }
    }

    /// M3: log and state from before a recovery in which another member was chosen count for nothing.
    pub(super) fn give_up_void_data(&mut self, meta: &mut Meta) {
        if meta.descends != meta.chain.recovered {
            meta.synced_for = None;
            // Its evidence is about data that nobody asks for any more.
            meta.fenced = None;
            self.scan_needed = true;
        }
    }

    pub(super) fn persist_meta(&mut self, meta: Meta, out: &mut Outputs) {
        self.meta_no = MetaNo(self.meta_no.0 + 1);
        self.meta_in_flight.push_back((self.meta_no, meta.clone()));
        self.meta = Some(meta.clone());
        if self.planted(Mutant::ConfigBeforePersist) {
            self.meta_durable = Some(meta.clone());
        }
        out.persist.push(Persist::Meta {
            no: self.meta_no,
            meta,
        });
    }

    /// Changes the metadata, if there is any, and asks to persist it.
    pub(super) fn change_meta(&mut self, out: &mut Outputs, change: impl FnOnce(&mut Meta)) {
        if let Some(mut meta) = self.meta.clone() {
            change(&mut meta);
            if self.meta.as_ref() != Some(&meta) {
                self.persist_meta(meta, out);
            }
        }
    }

    /// C1: acts on a config once it is durable.
    pub(super) fn enter_persisted_epoch(&mut self, now: Mono, out: &mut Outputs) {
        let Some(durable) = self.meta_durable.as_ref() else {
            return;
        };
        let newer = durable.chain.epoch > self.epoch()
            || (self.planted(Mutant::OlderConfigAccepted) && durable.chain.epoch != self.epoch());
        if newer {
            let chain = durable.chain.clone();
            self.enter_epoch(now, chain, out);
        }
    }

    fn enter_epoch(&mut self, now: Mono, chain: ChainConfig, out: &mut Outputs) {
        let was_head = self.is_head();
        let epoch = chain.epoch;
        self.go_into_debt(now, &chain);
        let descends = self.meta.as_ref().map(|m| m.descends);
        // A scan that began while the config was being persisted copied a history that is over (M3).
        self.scan_needed |= descends.is_some_and(|descends| descends != chain.recovered);
        let old = self.chain.replace(chain);
        let fellows = |c: &ChainConfig| c.members.iter().map(|m| m.node).collect::<Vec<_>>();
        self.unheard = old.as_ref().map(fellows).unwrap_or_default();
        if let Some(chain) = &self.chain {
            self.unheard.extend(fellows(chain));
        }
        self.unheard.extend(self.debts.fellows());
        if was_head && !self.is_head() {
            self.interrupt_waiters(out);
        }
        if !was_head {
            // A new head adds nothing to the log's time (DESIGN §3.4).
            self.clock.restart(now);
        }
        out.events.push(Event::EpochEntered { epoch });
        self.start_epoch(now, out);
    }

    /// R3: what was promised in older epochs and still runs is owed to every fellow of theirs.
    fn go_into_debt(&mut self, now: Mono, chain: &ChainConfig) {
        let me = self.id.node;
        if self.planted(Mutant::DebtForgottenAtSecondChange) {
            let before = self.epoch();
            self.debts.clear();
            self.promises.retain(|p| p.epoch == before);
        }
        self.promises.retain(|p| p.until > now);
        let removed_only = self.planted(Mutant::DebtToRemovedOnly);
        if !self.planted(Mutant::NoDebt) {
            for promise in self.promises.iter().filter(|p| p.epoch < chain.epoch) {
                for fellow in promise.fellows.iter().filter(|f| **f != me) {
                    if !removed_only || chain.position(*fellow).is_none() {
                        self.debts.add(*fellow, promise.until);
                    }
                }
            }
            if removed_only {
                self.promises.clear();
            }
            // R4: promises made in the epoch of our start, before that start, may still run.
            let unsure_until = self.started.plus(limits::LEASE_MAX);
            if let Some(start) = &self.chain_at_start
                && now < unsure_until
                && !self.planted(Mutant::DebtForgottenByRestart)
            {
                for fellow in start.members.iter().map(|m| m.node).filter(|f| *f != me) {
                    self.debts.add(fellow, unsure_until);
                }
            }
        }
        // Whoever announced this epoch or a newer one already serves no older one.
        for (fellow, epoch) in &self.announced {
            if *epoch >= chain.epoch {
                self.debts.paid_by(*fellow);
            }
        }
    }

    /// Begins the epoch in force, after a config or after a start: no link, lease or barrier is left.
    pub(super) fn start_epoch(&mut self, now: Mono, out: &mut Outputs) {
        self.up = None;
        self.down.clear();
        self.lease = Lease::default();
        self.in_sync = false;
        self.barrier = None;
        let Some(chain) = self.chain.clone() else {
            return;
        };
        if self.is_head() {
            // S2: head and solo: the own log's end on entry.
            self.barrier = Some(self.log.last());
        }
        let started_here = self.chain_at_start.as_ref().map(|c| c.epoch) == Some(chain.epoch);
        let paid = self.meta.as_ref().is_some_and(|m| m.paid == chain.epoch);
        if started_here && !paid && !self.planted(Mutant::DebtForgottenByRestart) {
            // R4: not sure which debts were left; they are over within L_max.
            self.debts.add_blanket(self.started.plus(limits::LEASE_MAX));
        }
        if chain.phase == ChainPhase::Creating {
            self.create(&chain, out);
        }
        if self.unheard.is_empty() {
            self.unheard = chain.members.iter().map(|m| m.node).collect();
        }
        self.unheard.sort();
        self.unheard.dedup();
        self.unheard.retain(|n| *n != self.id.node);
        self.announce_until = now.plus(limits::LEASE_MAX);
        self.announce(out);
    }

    /// C4: only in a creating epoch may a replica be in sync and empty.
    fn create(&mut self, chain: &ChainConfig, out: &mut Outputs) {
        let empty = self.log.last() == Seq::ZERO && self.commit == Seq::ZERO;
        let Some(member) = self.membership().filter(|_| empty && !self.scan_needed) else {
            return;
        };
        self.change_meta(out, |meta| {
            meta.synced_for = Some((member.disk, member.joined_epoch))
        });
        out.events.push(Event::InSync {
            epoch: chain.epoch,
            joined_epoch: member.joined_epoch,
        });
    }

    /// Tells every fellow that has not been heard at our epoch that we have persisted it (C5).
    pub(super) fn announce(&mut self, out: &mut Outputs) {
        for fellow in self.unheard.clone() {
            let reply_wanted = self.debts.fellows().any(|f| f == fellow);
            self.send(fellow, Body::Announce { reply_wanted }, out);
        }
    }

    pub(super) fn on_announce(&mut self, from: NodeId, reply_wanted: bool, out: &mut Outputs) {
        if reply_wanted {
            self.send(
                from,
                Body::Announce {
                    reply_wanted: false,
                },
                out,
            );
        }
    }

    /// A fellow is known to have persisted `epoch` (C5).
    pub(super) fn note_epoch(&mut self, now: Mono, from: NodeId, epoch: Epoch, out: &mut Outputs) {
        let known = self.announced.entry(from).or_insert(Epoch::ZERO);
        if epoch <= *known {
            return;
        }
        *known = epoch;
        if epoch >= self.epoch() {
            self.debts.paid_by(from);
            self.unheard.retain(|n| *n != from);
            self.greet_again(now, from, out);
        }
    }

    /// C3: tells a fellow of another epoch what we hold.
    pub(super) fn refuse(&mut self, now: Mono, to: NodeId, out: &mut Outputs) {
        let Some(chain) = self.chain.clone() else {
            return;
        };
        let last = self.refused.get(&to);
        if last.is_some_and(|(epoch, at)| *epoch == chain.epoch && now.since(*at) < REFUSE_EVERY) {
            return;
        }
        self.refused.insert(to, (chain.epoch, now));
        self.send(to, Body::Refuse(Box::new(chain)), out);
    }

    /// C3: the refused sender learns the newer config; the other way round we teach it.
    pub(super) fn on_refuse(
        &mut self,
        now: Mono,
        from: NodeId,
        chain: ChainConfig,
        out: &mut Outputs,
    ) {
        if chain.epoch >= self.epoch() {
            self.on_config(now, chain, out);
        } else {
            self.refuse(now, from, out);
        }
    }

    /// R1: a sighting of a round binds us to everybody in this epoch.
    pub(super) fn promise(&mut self, now: Mono, round: Round) {
        let Some(chain) = &self.chain else { return };
        let until = lease::promise_until(now, round);
        match self.promises.last_mut().filter(|p| p.epoch == chain.epoch) {
            Some(promise) => promise.until = promise.until.max(until),
            None => {
                let fellows = chain.members.iter().map(|m| m.node).collect();
                self.promises.push(Promise {
                    epoch: chain.epoch,
                    fellows,
                    until,
                });
            }
        }
    }

    /// R3: debts that ran out are gone; once none is left, that is persisted.
    pub(super) fn settle_debts(&mut self, now: Mono, out: &mut Outputs) {
        self.debts.expire(now);
        if !self.debts.none() {
            if let Some(at) = self.debts.next_end() {
                self.arm(super::Timer::Debt, at, out);
            }
            return;
        }
        let epoch = self.epoch();
        // Only for the epoch in force: a newer one that is being persisted has debts of its own.
        let pending = self.meta.as_ref().is_some_and(|m| m.chain.epoch != epoch);
        if epoch > Epoch::ZERO && !pending && self.meta.as_ref().is_some_and(|m| m.paid != epoch) {
            self.change_meta(out, |meta| meta.paid = epoch);
            out.events.push(Event::DebtsPaid { epoch });
        }
    }

    /// Stops for good and keeps everything (C2, L2): only an operator may clear it.
    pub(super) fn fence(&mut self, evidence: String, out: &mut Outputs) {
        if self.is_fenced() {
            return;
        }
        self.change_meta(out, |meta| meta.fenced = Some(evidence.clone()));
        self.up = None;
        self.down.clear();
        self.in_sync = false;
        self.interrupt_waiters(out);
        out.events.push(Event::Fenced { evidence });
    }

    /// The replica is damaged: it is nobody's source and serves nothing until a fellow has repaired it (S1).
    pub(super) fn lose_sync(&mut self, out: &mut Outputs) {
        self.in_sync = false;
        self.change_meta(out, |meta| meta.synced_for = None);
        if let Some(durable) = &mut self.meta_durable {
            durable.synced_for = None;
        }
    }
}
