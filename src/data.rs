//! The data commands: one operation each, without a session.
//!
//! A single command sends its write at most once, and so can say for certain
//! when nothing happened; a lost answer is *unknown*, exit status 6.

mod rows;

use std::io::Read;

use bytes::Bytes;
use catena_client::{Client, Consistency, Expect, Options, Seq, Swap};
use catena_proto::limits;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::arguments;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::{JsonBytes, Output, printable};

/// Reading and writing data.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read a key
    #[command(
        after_help = "Examples:\n  catena get greeting\n  catena get greeting --consistency stale=500\n  catena get --hex 00ff"
    )]
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        reading: Reading,
        #[command(flatten)]
        binary: Binary,
    },
    /// Set a key's value
    #[command(
        after_help = "Examples:\n  catena put greeting hello\n  catena put photo - < photo.jpg"
    )]
    Put {
        /// The key
        key: String,
        /// The value; `-` reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        binary: Binary,
    },
    /// Remove a key; a missing key is no error
    #[command(after_help = "Example:\n  catena del greeting")]
    Del {
        /// The key
        key: String,
        #[command(flatten)]
        binary: Binary,
    },
    /// Set a key's value if a condition holds; exit status 4 if it does not
    #[command(
        after_help = "Examples:\n  catena cas leader --expect-absent alice\n  catena cas leader --expect-value alice bob\n  catena cas leader --expect-version 17 carol"
    )]
    Cas {
        /// The key
        key: String,
        #[command(flatten)]
        expect: ExpectArgs,
        /// The new value; `-` reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        binary: Binary,
    },
    /// Add to a decimal 64-bit integer; a missing key counts as 0
    #[command(after_help = "Examples:\n  catena incr visits\n  catena incr stock -5")]
    Incr {
        /// The key
        key: String,
        /// What is added; may be negative
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
        #[command(flatten)]
        binary: Binary,
    },
    /// Append to a key's value; a missing key counts as empty
    #[command(after_help = "Example:\n  catena append log 'one more line'")]
    Append {
        /// The key
        key: String,
        /// What is appended; `-` reads it from stdin
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        binary: Binary,
    },
    /// List keys in order, with their values
    #[command(
        after_help = "Examples:\n  catena scan --prefix user/ --limit 10\n  catena scan --from a --to b --reverse --output json"
    )]
    Scan(rows::Args),
}

/// How a read is done.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// linearizable, or stale[=MAX_LAG_MS], which needs no lease
    #[arg(long, default_value = "linearizable", value_parser = arguments::consistency, value_name = "KIND")]
    consistency: Consistency,
}

/// How keys and values are written.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Binary {
    /// Keys and values of the command line and of tables are hex; stdin is always raw bytes
    #[arg(long)]
    hex: bool,
}

/// Exactly one condition.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ExpectArgs {
    /// The key's version is N
    #[arg(long, value_name = "N")]
    expect_version: Option<u64>,
    /// The key's value is V
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    expect_value: Option<String>,
    /// The key does not exist
    #[arg(long)]
    expect_absent: bool,
}

impl Binary {
    /// A word of the command line as bytes.
    fn bytes(self, what: &str, word: &str) -> Result<Bytes, Failure> {
        if self.hex {
            arguments::hex(word).map_err(|why| {
                Failure::usage(
                    format!("{what} {word:?}"),
                    why,
                    "leave --hex away for plain text",
                )
            })
        } else {
            Ok(Bytes::copy_from_slice(word.as_bytes()))
        }
    }

    /// The value that a word names: itself, or stdin.
    fn value(self, word: &str) -> Result<Bytes, Failure> {
        if word == "-" {
            stdin()
        } else {
            self.bytes("value", word)
        }
    }

    /// A key or value as a table shows it.
    fn show(self, bytes: &[u8]) -> String {
        if self.hex {
            arguments::to_hex(bytes)
        } else {
            printable(bytes)
        }
    }
}

impl ExpectArgs {
    fn expect(&self, binary: Binary) -> Result<Expect, Failure> {
        Ok(match (self.expect_version, &self.expect_value) {
            (Some(version), _) => Expect::Version(Seq::new(version)),
            (None, Some(value)) => Expect::Value(binary.bytes("expected value", value)?),
            (None, None) => Expect::Absent,
        })
    }
}

/// A value from stdin, byte for byte; one beyond the limit is refused before it is read whole.
fn stdin() -> Result<Bytes, Failure> {
    let most = limits::VALUE_BYTES_MAX;
    let mut value = Vec::new();
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin()
        .lock()
        .take(bound)
        .read_to_end(&mut value)
        .map_err(|why| {
            Failure::local(
                "reading the value from stdin",
                why,
                "check where stdin comes from",
            )
        })?;
    if value.len() > most {
        return Err(Failure::usage(
            "the value from stdin",
            format!("it is longer than {most} bytes"),
            "split it over several keys",
        ));
    }
    Ok(value.into())
}

#[derive(Serialize)]
struct WriteLine {
    key: JsonBytes,
    version: u64,
    shard: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
}

#[derive(Serialize)]
struct ReadLine {
    key: JsonBytes,
    value: JsonBytes,
    version: u64,
    shard: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_ms: Option<u64>,
}

/// Runs one data command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    // Everything that can be wrong with the words is found before anything is sent.
    match command {
        Command::Get {
            key,
            reading,
            binary,
        } => {
            let key = binary.bytes("key", &key)?;
            get(
                connect(global).await?,
                key,
                reading.consistency,
                binary,
                output,
            )
            .await
        }
        Command::Scan(args) => rows::run(args, global, output).await,
        Command::Put { key, value, binary } => {
            let (key, value) = (binary.bytes("key", &key)?, binary.value(&value)?);
            let what = format!("put {}", binary.show(&key));
            let client = connect(global).await?;
            let done = client.put(key.clone(), value).await;
            let done = done.map_err(|error| Failure::write(what, &error))?;
            written(&key, done.version, done.shard.get(), "written", output)
        }
        Command::Append { key, value, binary } => {
            let (key, value) = (binary.bytes("key", &key)?, binary.value(&value)?);
            let what = format!("append {}", binary.show(&key));
            let client = connect(global).await?;
            let done = client.append(key.clone(), value).await;
            let done = done.map_err(|error| Failure::write(what, &error))?;
            written(&key, done.version, done.shard.get(), "appended", output)
        }
        Command::Cas {
            key,
            expect,
            value,
            binary,
        } => {
            let (key, expect) = (binary.bytes("key", &key)?, expect.expect(binary)?);
            let value = binary.value(&value)?;
            cas(connect(global).await?, key, expect, value, binary, output).await
        }
        Command::Del { key, binary } => {
            let key = binary.bytes("key", &key)?;
            let what = format!("del {}", binary.show(&key));
            let client = connect(global).await?;
            let done = client.delete(key.clone()).await;
            let done = done.map_err(|error| Failure::write(what, &error))?;
            let line = WriteLine {
                deleted: Some(done.existed),
                ..write_line(&key, done.version, done.shard.get())
            };
            let said = if done.existed {
                "deleted"
            } else {
                "there was no such key"
            };
            tell(&line, said, output)
        }
        Command::Incr { key, by, binary } => {
            let key = binary.bytes("key", &key)?;
            let what = format!("incr {}", binary.show(&key));
            let client = connect(global).await?;
            let done = client.increment(key.clone(), by).await;
            let done = done.map_err(|error| Failure::write(what, &error))?;
            let value = done.value.to_string();
            if !output.is_json() {
                return output.line(value.as_bytes());
            }
            let line = write_line(&key, done.version, done.shard.get());
            output.json(&WriteLine {
                value: Some(value),
                ..line
            })
        }
    }
}

/// A client for one command: no session, so its write is sent at most once.
async fn connect(global: &Global) -> Result<Client, Failure> {
    let options = Options {
        timeout: global.timeout,
        connect_timeout: global.timeout,
        ..Options::single_command()
    };
    Client::connect(global.endpoints()?, options)
        .await
        .map_err(|error| Failure::read("finding the cluster", &error))
}

async fn get(
    client: Client,
    key: Bytes,
    consistency: Consistency,
    binary: Binary,
    output: &mut Output,
) -> Result<(), Failure> {
    let what = format!("get {}", binary.show(&key));
    let found = client.get_with(key.clone(), consistency).await;
    let Some(row) = found.map_err(|error| Failure::read(what.as_str(), &error))? else {
        return Err(Failure::new(
            Exit::NotFound,
            "not_found",
            what,
            "no such key",
            "`catena scan --prefix …` lists the keys there are",
        ));
    };
    if output.is_json() {
        return output.json(&ReadLine {
            key: JsonBytes::from(&key[..]),
            value: JsonBytes::from(&row.value[..]),
            version: row.version.get(),
            shard: row.shard.get(),
            seq: row.freshness.map(|f| f.applied.get()),
            lag_ms: row.freshness.map(|f| f.lag_ms),
        });
    }
    if binary.hex {
        return output.line(arguments::to_hex(&row.value).as_bytes());
    }
    // The value as it is: a script that wants bytes gets bytes.
    output.line(&row.value)
}

async fn cas(
    client: Client,
    key: Bytes,
    expect: Expect,
    value: Bytes,
    binary: Binary,
    output: &mut Output,
) -> Result<(), Failure> {
    let what = format!("cas {}", binary.show(&key));
    let wanted = match &expect {
        Expect::Version(version) => format!("version {version}"),
        Expect::Value(value) => format!("the value {:?}", binary.show(value)),
        Expect::Absent => "no such key".into(),
    };
    match client.compare_and_swap(key.clone(), expect, value).await {
        Err(error) => Err(Failure::write(what, &error)),
        Ok(Swap::Swapped(done)) => written(&key, done.version, done.shard.get(), "written", output),
        Ok(Swap::Mismatch { actual, .. }) => {
            let found = actual.map_or_else(|| "no such key".into(), |v| format!("version {v}"));
            Err(Failure::new(
                Exit::ConditionFailed,
                "condition_failed",
                what,
                format!("expected {wanted}, found {found}; nothing was changed"),
                "read the key and decide again",
            ))
        }
    }
}

fn write_line(key: &[u8], version: Seq, shard: u64) -> WriteLine {
    WriteLine {
        key: JsonBytes::from(key),
        version: version.get(),
        shard,
        value: None,
        deleted: None,
    }
}

fn written(
    key: &[u8],
    version: Seq,
    shard: u64,
    said: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    tell(&write_line(key, version, shard), said, output)
}

fn tell(line: &WriteLine, said: &str, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        output.json(line)
    } else {
        output.line(format!("{said}: version {}, shard {}", line.version, line.shard).as_bytes())
    }
}
