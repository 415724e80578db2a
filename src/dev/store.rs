//! x
use super::layout::Layout;
use crate::exit::Failure;
use catena_proto::config::ClusterConfig;
use catena_proto::ids::{ClusterId, DiskId, NodeId};
use std::path::Path;
pub(crate) fn url(layout: &Layout) -> String {
    format!("file://{}", layout.store_dir().display())
}
pub(crate) async fn write(_layout: &Layout, _config: &ClusterConfig) -> Result<(), Failure> {
    Ok(())
}
pub(crate) async fn newest(_layout: &Layout) -> Result<ClusterConfig, Failure> {
    Ok(ClusterConfig::empty(ClusterId::new(0)))
}
pub(crate) fn format(_dir: &Path, _cluster: ClusterId, _node: NodeId) -> Result<DiskId, Failure> {
    Ok(DiskId::new(1))
}
