//! What an operator asks of a chain: planned on a copy of the state, then proposed.
//!
//! A dry run is the same plan without the proposal, so it cannot say anything
//! else than what would happen.

use catena_proto::config::{ChainConfig, Member};
use catena_proto::ids::{Epoch, NodeId, ShardId};
use catena_proto::redirect::{change_refused, no_such};
use catena_proto::time::Mono;
use catena_proto::wire;
use tokio::sync::oneshot;
use tonic::Status;

use crate::control::{self, Observed};
use crate::state::{Applied, ChainStep, Change, Command, Controller, MasterState, Removal, WallMs};

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: wire::ChangeChainRequest,
    pub(crate) answer: oneshot::Sender<Result<wire::ChangeChainResponse, Status>>,
}

/// What is to be proposed, and what it will do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) commands: Vec<Command>,
    pub(crate) response: wire::ChangeChainResponse,
}

/// Plans a request on the state and on what the leader sees; or says why it cannot be.
pub(crate) fn plan(
    state: &MasterState,
    observed: &Observed,
    request: &wire::ChangeChainRequest,
    now: Mono,
    at: WallMs,
) -> Result<Plan, Status> {
    use wire::change_chain_request::Change as Wanted;
    let shard = ShardId::new(request.shard_id);
    let config = state
        .config()
        .ok_or_else(|| change_refused("the cluster is not created yet: start its nodes"))?;
    let before = config.chains.get(&shard).ok_or_else(|| {
        no_such(format!(
            "there is no shard {shard}: see `catena chain list`"
        ))
    })?;
    let expected = Epoch::new(request.expected_epoch);
    if expected != Epoch::ZERO && expected != before.epoch {
        let why = format!(
            "shard {shard} is at epoch {}, the request expects {expected}: look again",
            before.epoch
        );
        return Err(change_refused(why));
    }
    let wanted = request
        .change
        .as_ref()
        .ok_or_else(|| Status::invalid_argument("`change` is missing"))?;
    let (changes, effects) = match wanted {
        Wanted::RemoveNodeId(node) => removal(state, observed, before, NodeId::new(*node), now)?,
        Wanted::AddNodeId(node) => addition(state, before, NodeId::new(*node))?,
        Wanted::Recover(recover) => recovery(before, recover)?,
    };
    let commands: Vec<Command> = changes
        .into_iter()
        .map(|(cause, change)| Command {
            at,
            by: Controller::Operator,
            cause,
            change,
        })
        .collect();
    let mut trial = state.clone();
    for command in &commands {
        if let Applied::Refused(why) = trial.apply(command) {
            return Err(change_refused(why.to_string()));
        }
    }
    let mut after = trial
        .config()
        .and_then(|c| c.chains.get(&shard))
        .cloned()
        .unwrap_or_else(|| before.clone());
    if let Wanted::AddNodeId(node) = wanted {
        after = appended(state, after, NodeId::new(*node));
    }
    Ok(Plan {
        commands,
        response: wire::ChangeChainResponse {
            before: Some(before.into()),
            after: Some((&after).into()),
            effects,
            position: Some(trial.position().into()),
        },
    })
}

type Planned = (Vec<(String, Change)>, Vec<String>);

fn removal(
    state: &MasterState,
    observed: &Observed,
    chain: &ChainConfig,
    node: NodeId,
    now: Mono,
) -> Result<Planned, Status> {
    let shard = chain.shard;
    if chain.position(node).is_none() {
        return Err(no_such(format!(
            "node {node} is no member of shard {shard}: see `catena chain show {shard}`"
        )));
    }
    let evidence =
        control::removal_evidence(state, observed, shard, node, now).map_err(change_refused)?;
    let cause = "an operator asked for it".to_owned();
    let removal = Change::ReconfigureChain {
        shard,
        expected_epoch: chain.epoch,
        step: ChainStep::Remove(vec![Removal { node, evidence }]),
    };
    let unwanted = Change::UnwantMember { shard, node };
    let left = chain.members.len().saturating_sub(1);
    let effects = vec![
        format!("node {node} leaves shard {shard}, and is not taken back by itself"),
        format!(
            "{left} members stay: the shard then survives the loss of {} more",
            left.saturating_sub(1)
        ),
    ];
    Ok((vec![(cause.clone(), unwanted), (cause, removal)], effects))
}

fn addition(state: &MasterState, chain: &ChainConfig, node: NodeId) -> Result<Planned, Status> {
    let shard = chain.shard;
    let registered = state.config().and_then(|c| c.nodes.get(&node));
    let Some(registered) = registered else {
        return Err(no_such(format!(
            "node {node} is not registered: start it with this cluster's masters"
        )));
    };
    if chain.member(node, registered.disk).is_some() {
        return Err(change_refused(format!(
            "node {node} is a member of shard {shard} already"
        )));
    }
    let change = Change::WantMember { shard, node };
    let effects = vec![
        format!("node {node} follows shard {shard} as a learner and copies what it lacks"),
        format!(
            "once it has caught up it becomes the tail, with {} members then",
            chain.members.len() + 1
        ),
    ];
    Ok((
        vec![("an operator asked for it".to_owned(), change)],
        effects,
    ))
}

fn recovery(chain: &ChainConfig, recover: &wire::Recover) -> Result<Planned, Status> {
    let (shard, node) = (chain.shard, NodeId::new(recover.node_id));
    if !recover.accept_data_loss {
        return Err(change_refused(format!(
            "data loss: what only the other members of shard {shard} have would be gone; say that you accept it"
        )));
    }
    let step = ChainStep::Recover { node };
    let change = Change::ReconfigureChain {
        shard,
        expected_epoch: chain.epoch,
        step,
    };
    let cause = "an operator accepts data loss".to_owned();
    let mut effects = vec![format!(
        "DATA LOSS: shard {shard} goes on with what node {node} has; writes that only others have are gone"
    )];
    if chain.position(node).is_none() {
        effects.push(format!(
            "node {node} is no member now: what it has is as old as its removal; if it never was one, the chain waits"
        ));
    }
    Ok((vec![(cause, change)], effects))
}

/// The chain as it will be once the node has caught up.
fn appended(state: &MasterState, mut chain: ChainConfig, node: NodeId) -> ChainConfig {
    if let Some(info) = state.config().and_then(|c| c.nodes.get(&node)) {
        chain.epoch = chain.epoch.next();
        chain.members.push(Member {
            node,
            disk: info.disk,
            joined_epoch: chain.epoch,
        });
    }
    chain
}
