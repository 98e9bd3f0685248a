//! Serves the fake EC2 as a program, for tests of a whole Kip: `cargo xtask e2e --cloud ec2` starts it.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Parser;
use kip_testkit::ec2::{Chaos, FakeEc2};

const AFTER_HELP: &str = "\
Example:
  kip-fake-ec2 --network 100.96.0.0 --throttled 50 --lost-replies 20 --seed 7

It prints where it serves, and serves until it is ended. GET /calls answers how often each action was called.";

#[derive(Debug, Parser)]
#[command(
    name = "kip-fake-ec2",
    about = "An EC2 that keeps its instances in memory and fails when told to",
    after_help = AFTER_HELP,
    max_term_width = 120
)]
struct Options {
    /// Where the instances' addresses begin.
    #[arg(long, value_name = "ADDRESS", default_value = "10.0.0.0")]
    network: Ipv4Addr,
    /// Milliseconds for which what was launched stays unknown to the other calls.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    lag: u64,
    /// Milliseconds for which instances stay pending.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    boot: u64,
    /// Milliseconds for which instances shut down.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    shutdown: u64,
    /// How many more instances of a type can be launched in a zone, as `t3.nano/us-east-1a=2`. Again and again.
    #[arg(long, value_name = "TYPE/ZONE=N", value_parser = capacity)]
    capacity: Vec<((String, String), u32)>,
    /// Of a thousand calls, how many are refused for their rate.
    #[arg(long, value_name = "N", default_value_t = 0)]
    throttled: u16,
    /// Of a thousand calls, how many are refused with an internal error.
    #[arg(long, value_name = "N", default_value_t = 0)]
    internal_errors: u16,
    /// Of a thousand calls, how many are done without a whole answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    lost_replies: u16,
    /// Of a thousand calls, how many never arrive.
    #[arg(long, value_name = "N", default_value_t = 0)]
    lost_calls: u16,
    /// Of a thousand launches, how many are refused for want of capacity.
    #[arg(long, value_name = "N", default_value_t = 0)]
    no_capacity: u16,
    /// Which calls are hit.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn capacity(text: &str) -> Result<((String, String), u32), String> {
    let wrong = || format!("`{text}` must be like t3.nano/us-east-1a=2");
    let (of, left) = text.split_once('=').ok_or_else(wrong)?;
    let (instance_type, zone) = of.split_once('/').ok_or_else(wrong)?;
    let left = left.parse().map_err(|_| wrong())?;
    Ok(((instance_type.to_owned(), zone.to_owned()), left))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let ec2 = FakeEc2::start().await?;
    {
        let mut state = ec2.state();
        state.network = options.network;
        state.lag = Duration::from_millis(options.lag);
        state.boot = Some(Duration::from_millis(options.boot));
        state.shutdown = Duration::from_millis(options.shutdown);
        state.other_types = Some("x86_64");
        state.capacity.extend(options.capacity);
    }
    ec2.unleash(Chaos {
        throttled: options.throttled,
        internal_errors: options.internal_errors,
        lost_replies: options.lost_replies,
        lost_calls: options.lost_calls,
        no_capacity: options.no_capacity,
        seed: options.seed,
    });
    writeln!(std::io::stdout(), "kip-fake-ec2: serving {}", ec2.url())?;
    std::future::pending().await
}
