//! A tiny program: counts its own runs in a cluster.
//!
//! Start a cluster with `catena dev`, then
//! `CATENA_ENDPOINTS=… cargo run -p catena-client --example quickstart`.

#![allow(clippy::print_stdout, reason = "a program that talks")]

use catena_client::{Client, Error, Expect, Options, ScanRange, Swap};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("CATENA_ENDPOINTS")
        .map_err(|_| "set CATENA_ENDPOINTS, as `catena dev` prints it")?;
    let client = Client::connect(endpoints.split(','), Options::default()).await?;

    let runs = client.increment("quickstart/runs", 1).await?;
    println!("run {} (version {})", runs.value, runs.version);

    // Only the first run ever sets this; a condition that fails is no error.
    match client
        .compare_and_swap("quickstart/first", Expect::Absent, "me")
        .await?
    {
        Swap::Swapped(written) => println!("the first run, at version {}", written.version),
        Swap::Mismatch { actual, .. } => println!("not the first run: {actual:?}"),
    }

    // A write has three outcomes, and a program says what it does about each.
    match client
        .put("quickstart/last", format!("run {}", runs.value))
        .await
    {
        Ok(written) => println!("written to shard {}", written.shard),
        Err(Error::Failed(cause)) => println!("nothing was done, and nothing will be: {cause}"),
        Err(Error::Unknown(cause)) => println!("read before writing again: {cause}"),
    }

    let mut scan = client.scan(ScanRange::prefix("quickstart/"));
    while let Some(row) = scan.next().await? {
        let key = String::from_utf8_lossy(&row.key);
        println!("{key} = {}", String::from_utf8_lossy(&row.value));
    }
    client.close().await;
    Ok(())
}
