//! `cube version`.

use cube_api::client::Client;

use crate::error::Result;
use crate::output::print;

/// Prints the client's version even where the leader's can't be had.
pub async fn run(client: impl FnOnce() -> Result<Client>) -> Result<()> {
    print(&format!("client   {}\n", env!("CARGO_PKG_VERSION")))?;
    let info = client()?.version().await?;
    print(&format!("leader   {}\n", info.version))
}
