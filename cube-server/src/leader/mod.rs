//! The control plane: API, scheduler, reconcile loops, one SQLite file.

pub mod api;
pub mod control;
pub mod metrics;
pub mod nodes;
pub mod plan;
pub mod store;

use std::path::PathBuf;
use std::sync::Arc;

use cube_api::auth::Keys;

use self::api::Api;
use self::nodes::Nodes;
use self::store::Store;
use crate::ambient::Ambient;
use crate::disk::Disk;
use crate::net::Listener;
use crate::serve;
use crate::tasks::Tasks;

/// What a leader is started with.
pub struct Config {
    /// Its SQLite file.
    pub database: PathBuf,
    /// What stands for the disk that the file is on; none: that disk.
    pub disk: Option<Arc<dyn Disk>>,
    /// What verifies credentials.
    pub keys: Keys,
    /// How long and how often its loops wait.
    pub loops: control::Options,
}

/// A leader that runs, for whoever looks at it from its own process.
pub struct Leader {
    /// The cluster's state.
    pub store: Store,
    /// The followers' sessions.
    pub nodes: Nodes,
    /// What is counted of the connections to it.
    pub connections: serve::Connections,
}

/// Opens the store, starts the loops and serves the API on `listener`. All of it ends with `tasks`.
pub async fn start(config: Config, listener: impl Listener, ambient: Ambient, tasks: &Tasks) -> anyhow::Result<Leader> {
    let store = match config.disk {
        None => Store::open(&config.database, ambient.clone(), tasks).await?,
        Some(disk) => Store::open_on(&config.database, disk, ambient.clone(), tasks).await?,
    };
    let nodes = Nodes::new(store.clone(), ambient.clone(), tasks.clone());
    control::start(&store, Arc::new(nodes.clone()), &ambient, tasks, config.loops);
    let api = Api::new(store.clone(), nodes.clone(), config.keys, ambient, tasks.clone());
    let connections = api.connections();
    tasks.spawn("api", serve::serve(listener, api::router(api), tasks.clone(), connections.clone()));
    Ok(Leader { store, nodes, connections })
}
