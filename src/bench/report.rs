//! The result of a bench, in the fields that scripts count on.

use std::time::Duration;

use serde::Serialize;

use super::Args;
use super::cpu::Used;
use super::load::Workload;
use super::meter::Totals;
use crate::exit::Failure;
use crate::output::Output;

/// One line of JSON, or a small table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    workload: &'static str,
    ops_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    errors: u64,
    unknown: u64,
    server_cpu_us_per_op: Option<f64>,
    client_cpu_us_per_op: Option<f64>,
    longest_gap_ms: f64,
    clients: u32,
    pipeline: u32,
    connections_per_node: u32,
    value_size: usize,
    keys: u64,
    seconds: f64,
    ops: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

impl Report {
    /// Puts the figures together.
    pub(crate) fn new(args: &Args, totals: &Totals, length: Duration, used: &Used) -> Self {
        let us = |quantile: f64| tenths(totals.latencies.value_at_quantile(quantile) as f64 / 1e3);
        let per_op = |used: Option<Duration>| {
            used.map(|used| hundredths(used.as_secs_f64() * 1e6 / totals.done as f64))
        };
        Self {
            workload: if args.gap {
                Workload::Put
            } else {
                args.workload
            }
            .name(),
            ops_per_s: tenths(totals.done as f64 / length.as_secs_f64()),
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: tenths(totals.latencies.max() as f64 / 1e3),
            errors: totals.errors,
            unknown: totals.unknown,
            server_cpu_us_per_op: per_op(used.servers),
            client_cpu_us_per_op: per_op(used.client),
            longest_gap_ms: hundredths(totals.gap.as_secs_f64() * 1e3),
            clients: if args.gap { 1 } else { args.clients },
            pipeline: args.pipeline,
            connections_per_node: args.connections,
            value_size: args.value_size,
            keys: args.keys,
            seconds: hundredths(length.as_secs_f64()),
            ops: totals.done,
            rate: args.rate,
            first_error: totals.first_error.clone(),
        }
    }

    /// Writes it to stdout.
    pub(crate) fn write(&self, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() {
            return output.json(self);
        }
        let cpu = |us: Option<f64>| us.map_or_else(|| "-".into(), |us| format!("{us} us/op"));
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row(
                "workload",
                format!("{} for {} s", self.workload, self.seconds),
            ),
            row(
                "clients",
                format!(
                    "{} x {} in flight, {} connection(s) to each node",
                    self.clients, self.pipeline, self.connections_per_node
                ),
            ),
            row("throughput", format!("{:.0} ops/s", self.ops_per_s)),
            row("p50", format!("{} us", self.p50_us)),
            row("p99", format!("{} us", self.p99_us)),
            row("p99.9", format!("{} us", self.p999_us)),
            row("max", format!("{} us", self.max_us)),
            row("longest gap", format!("{} ms", self.longest_gap_ms)),
            row("errors", self.errors.to_string()),
            row("unknown", self.unknown.to_string()),
            row("server CPU", cpu(self.server_cpu_us_per_op)),
            row("client CPU", cpu(self.client_cpu_us_per_op)),
        ];
        if let Some(first) = &self.first_error {
            rows.push(row("first error", first.clone()));
        }
        output.table(&["measure", "value"], rows)
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
