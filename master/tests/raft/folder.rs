//! What a master's folder must be before it votes.

use catena_master::raft::{RaftHandle, StartError};
use catena_proto::ids::ClusterId;

use crate::kit::{Masters, master, note};

async fn refused(
    masters: &Masters,
    change: impl FnOnce(&mut catena_master::raft::RaftConfig),
) -> StartError {
    let mut config = masters.config(master(1), false);
    change(&mut config);
    match RaftHandle::start(config).await {
        Err(why) => why,
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_empty_foreign_or_in_use_is_refused() {
    let mut masters = Masters::start(1).await;
    masters.propose(&note("one")).await;

    let copy = refused(&masters, |_| {}).await;
    assert!(matches!(copy, StartError::InUse { .. }), "{copy}");
    assert_eq!(copy.exit_status(), 5);
    masters.stop_all().await;

    let foreign = refused(&masters, |config| config.cluster = ClusterId::new(1)).await;
    assert!(matches!(foreign, StartError::NotOurs { .. }), "{foreign}");
    assert_eq!(foreign.exit_status(), 3);
    let other = refused(&masters, |config| {
        let node = config.masters[&master(1)].clone();
        config.masters.insert(master(2), node);
        config.me = master(2);
    })
    .await;
    assert!(matches!(other, StartError::NotOurs { .. }), "{other}");
    let unlisted = refused(&masters, |config| config.masters.clear()).await;
    assert!(
        matches!(unlisted, StartError::NotListed { .. }),
        "{unlisted}"
    );

    let empty = tempfile::tempdir().expect("a folder");
    let dir = empty.path().to_owned();
    let forgot = refused(&masters, |config| config.dir = dir).await;
    assert!(matches!(forgot, StartError::EmptyFolder { .. }), "{forgot}");
    assert!(forgot.to_string().contains("--bootstrap"), "{forgot}");
    assert_eq!(forgot.exit_status(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_is_not_an_empty_one() {
    let mut masters = Masters::start(1).await;
    masters.propose(&note("one")).await;
    masters.stop_all().await;
    let log = masters.folder(master(1)).join("log");
    std::fs::remove_dir_all(&log).expect("removed");
    let lost = refused(&masters, |config| config.bootstrap = true).await;
    assert!(matches!(lost, StartError::Damaged { .. }), "{lost}");
    assert_eq!(lost.exit_status(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_identity_is_refused() {
    let mut masters = Masters::start(1).await;
    masters.stop_all().await;
    let path = masters.folder(master(1)).join("identity.json");
    let text = std::fs::read_to_string(&path).expect("text");
    let forged = text.replace("\"log_used\": true", "\"log_used\": false");
    assert_ne!(text, forged);
    std::fs::write(&path, forged).expect("written");
    let damaged = refused(&masters, |_| {}).await;
    assert!(matches!(damaged, StartError::Damaged { .. }), "{damaged}");
}
