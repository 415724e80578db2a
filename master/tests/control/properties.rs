//! Random faults in the small world, and observations that no world would give: the rules hold, and what is healed
//! comes back.

use std::time::Duration;

use catena_master::control::{Observed, Since, act, compare};
use catena_master::state::{Applied, Change, WallMs};
use catena_proto::ids::{DiskId, Epoch, Incarnation, NodeId, Seq};
use catena_proto::report::{LinkReport, NodeOpen, ReplicaReport, Report, Standing};
use catena_proto::time::Mono;
use proptest::prelude::*;

use crate::rules::Rules;
use crate::world::{Manners, World};

#[derive(Clone, Debug)]
enum Fault {
    Kill(u64),
    Start(u64, bool),
    Stop(u64),
    Cont(u64),
    CutMaster(u64),
    HealMaster(u64),
    CutAll,
    Cut(u64, u64),
    Heal(u64, u64),
    Manners(u64, Manners),
    Leader,
    Wall(i64),
    Touch,
    Pause(bool),
    Run(u64),
}

fn fault(nodes: u64) -> impl Strategy<Value = Fault> {
    let n = || 1..=nodes;
    let manners = prop_oneof![
        3 => Just(Manners::Good),
        1 => Just(Manners::Ignores),
        1 => Just(Manners::Refuses("no".into())),
        1 => Just(Manners::AcksOnly),
    ];
    prop_oneof![
        4 => n().prop_map(Fault::Kill),
        4 => (n(), prop::bool::weighted(0.2)).prop_map(|(n, new)| Fault::Start(n, new)),
        2 => n().prop_map(Fault::Stop),
        3 => n().prop_map(Fault::Cont),
        2 => n().prop_map(Fault::CutMaster),
        3 => n().prop_map(Fault::HealMaster),
        1 => Just(Fault::CutAll),
        2 => (n(), n()).prop_map(|(a, b)| Fault::Cut(a, b)),
        3 => (n(), n()).prop_map(|(a, b)| Fault::Heal(a, b)),
        2 => (n(), manners).prop_map(|(n, m)| Fault::Manners(n, m)),
        1 => Just(Fault::Leader),
        1 => (-7_200..7_200_i64).prop_map(Fault::Wall),
        1 => Just(Fault::Touch),
        1 => prop::bool::weighted(0.3).prop_map(Fault::Pause),
        12 => (1..60_u64).prop_map(|tenths| Fault::Run(tenths * 100)),
    ]
}

fn inflict(world: &mut World, fault: &Fault) {
    let id = |n: &u64| NodeId::new(*n);
    match fault {
        Fault::Kill(n) => world.kill(id(n)),
        Fault::Start(n, new) => world.start(id(n), *new),
        Fault::Stop(n) => world.stop(id(n), true),
        Fault::Cont(n) => world.stop(id(n), false),
        Fault::CutMaster(n) => world.cut_master(id(n), true),
        Fault::HealMaster(n) => world.cut_master(id(n), false),
        Fault::CutAll => world.ids().iter().for_each(|n| world.cut_master(*n, true)),
        Fault::Cut(a, b) => world.cut(id(a), id(b), true),
        Fault::Heal(a, b) => world.cut(id(a), id(b), false),
        Fault::Manners(n, manners) => world.manners(id(n), manners.clone()),
        Fault::Leader => world.new_leader(),
        Fault::Wall(s) => world.shift_wall(s * 1_000),
        Fault::Touch => world.touch(),
        Fault::Pause(paused) => world.propose(Change::SwitchController {
            name: "membership".into(),
            paused: *paused,
        }),
        Fault::Run(ms) => world.run(*ms),
    }
}

fn heal(world: &mut World) {
    for id in world.ids() {
        world.start(id, false);
        world.stop(id, false);
        world.cut_master(id, false);
        world.manners(id, Manners::Good);
        for other in world.ids() {
            world.cut(id, other, false);
        }
    }
    world.propose(Change::SwitchController {
        name: "membership".into(),
        paused: false,
    });
}

fn survives(nodes: u64, replicas: usize, shards: usize, faults: &[Fault]) {
    let all: Vec<u64> = (1..=nodes).collect();
    let mut world = World::new(&all, replicas, shards);
    for fault in faults {
        inflict(&mut world, fault);
    }
    heal(&mut world);
    // Long enough for the longest wait of a flapping node, and one exclusion each 10 s.
    world.run(400_000);
    let config = world.state.config().expect("created");
    for chain in config.chains.values() {
        let in_sync = world.state.shard(chain.shard).expect("a record").in_sync();
        if in_sync.is_empty() {
            continue; // M3: all that was in sync lost its disk.
        }
        assert_eq!(
            (chain.members.len(), in_sync.len()),
            (replicas, replicas),
            "what is healed is whole again:\n{}{}",
            world.transcript,
            world.status()
        );
    }
    assert!(
        config.learners.is_empty(),
        "nobody follows for ever: {:?}",
        config.learners
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn three_nodes_keep_the_rules_and_heal(faults in prop::collection::vec(fault(3), 1..40)) {
        survives(3, 3, 1, &faults);
    }

    #[test]
    fn five_nodes_with_four_shards_keep_the_rules_and_heal(faults in prop::collection::vec(fault(5), 1..40)) {
        survives(5, 3, 4, &faults);
    }
}

/// What one node may have said, true or not.
#[derive(Clone, Debug)]
struct Said {
    connected: bool,
    /// Milliseconds ago; `None`: it never came.
    reported_ago: Option<u64>,
    epoch_back: u64,
    behind: bool,
    in_sync: bool,
    alive: Vec<Option<bool>>,
}

fn said(nodes: usize) -> impl Strategy<Value = Said> {
    let alive = prop::option::weighted(0.6, any::<bool>());
    // Most of them report, or there is nobody to act for.
    let ago = prop_oneof![5 => 0..1_400_u64, 1 => 1_400..4_000_u64];
    (
        prop::bool::weighted(0.85),
        prop::option::weighted(0.95, ago),
        0..3_u64,
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(alive, nodes),
    )
        .prop_map(
            |(connected, reported_ago, epoch_back, behind, in_sync, alive)| Said {
                connected,
                reported_ago,
                epoch_back,
                behind,
                in_sync,
                alive,
            },
        )
}

fn observe(world: &World, all: &[Said], now: u64) -> Observed {
    let mut observed = Observed::new(Mono::from_millis(now - 20_000));
    let config = world.state.config().expect("created");
    let position = world.state.position();
    for (at, said) in all.iter().enumerate() {
        let node = NodeId::new(at as u64 + 1);
        let Some(ago) = said.reported_ago else {
            continue;
        };
        let when = Mono::from_millis(now - ago);
        let mut held = position;
        if said.behind {
            held.version = catena_proto::ids::ConfigVersion::new(held.version.get() - 1);
        }
        let disk = config.nodes.get(&node).map_or(DiskId::new(1), |i| i.disk);
        observed.on_open(
            when,
            &NodeOpen {
                cluster: config.cluster,
                node,
                disk,
                incarnation: Incarnation::new(1),
                addr: "a:1".into(),
                http: String::new(),
                zone: String::new(),
                position: held,
                version: "test".into(),
            },
        );
        let replicas = config.chains.values().filter_map(|chain| {
            let member = chain.member(node, disk)?;
            Some(ReplicaReport {
                shard: chain.shard,
                epoch: Epoch::new(chain.epoch.get().saturating_sub(said.epoch_back)),
                joined_epoch: member.joined_epoch,
                standing: Standing::Member(chain.role(node)?),
                synced: true,
                in_sync: said.in_sync,
                last: Seq::new(1),
                durable: Seq::new(1),
                commit: Seq::new(1),
                applied: Seq::new(1),
                fenced: false,
                serving_reads: true,
                why: String::new(),
            })
        });
        let links = said.alive.iter().enumerate().filter_map(|(fellow, alive)| {
            let fellow = NodeId::new(fellow as u64 + 1);
            let alive = (*alive)?;
            let silent = Some(Duration::from_millis(if alive { 10 } else { 900 }));
            (fellow != node).then_some(LinkReport {
                fellow,
                alive,
                silent,
            })
        });
        observed.on_report(
            when,
            node,
            Report {
                no: 1,
                acked: held,
                effective: held,
                config_source: "push".into(),
                replicas: replicas.collect(),
                links: links.collect(),
                read_only: false,
                uptime: Duration::from_secs(60),
                alarms: Vec::new(),
            },
        );
        if !said.connected {
            observed.on_closed(Mono::from_millis(now), node);
        }
    }
    observed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_observed_the_rules_hold(
        first in prop::collection::vec(said(5), 5),
        second in prop::collection::vec(said(5), 5),
        apart in 0..30_000_u64,
    ) {
        let mut world = World::new(&[1, 2, 3, 4, 5], 3, 2);
        let (mut rules, mut since) = (Rules::default(), Since::default());
        let mut now = 100_000;
        for all in [first, second] {
            now += apart;
            // Discrepancies have lasted for a while by the second look.
            for ago in [8_000, 0] {
                let observed = observe(&world, &all, now);
                let (at, wall) = (Mono::from_millis(now - ago), WallMs(2_000_000_000 + now));
                let found = compare(&world.state, &observed, at);
                since.note(&found, at);
                if ago > 0 {
                    continue;
                }
                let actions = act(&world.state, &observed, &found, &since, at, wall);
                rules.check(&world.state, &observed, at, wall, &actions);
                for action in actions {
                    if let catena_master::control::Action::Propose(command) = action {
                        let applied = world.state.apply(&command);
                        prop_assert!(
                            !matches!(applied, Applied::Refused(_)),
                            "{:?} for {:?}", applied, command
                        );
                    }
                }
            }
        }
    }
}
