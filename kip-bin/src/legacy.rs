//! The command line of the old Kip: accepted, so that an existing deployment starts; what lost its meaning says what replaced it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Flags and environment variables of the old Kip without a meaning, or with another one.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Flags {
    #[arg(long, hide = true, default_value = "kip", value_parser = ["kip"])]
    provider: String,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = switch)]
    debug_server: Option<bool>,
    #[arg(long, hide = true)]
    network_agent_secret: Option<String>,
    #[arg(long, hide = true)]
    network_agent_kubeconfig: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) instance_data_path: Option<PathBuf>,
    #[arg(long, hide = true)]
    os: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = switch)]
    enable_node_lease: Option<bool>,
    #[arg(long, hide = true)]
    full_resync_period: Option<String>,
    #[arg(long, hide = true)]
    startup_timeout: Option<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<String>,
    #[arg(long, hide = true)]
    kube_api_burst: Option<String>,
    #[arg(long, hide = true)]
    trace_exporter: Vec<String>,
    #[arg(long, hide = true)]
    trace_service_name: Option<String>,
    #[arg(long, hide = true)]
    trace_tag: Vec<String>,
    #[arg(long, hide = true)]
    trace_sample_rate: Option<String>,
    #[arg(long, hide = true)]
    trace_zpages_addr: Option<String>,
    #[arg(long, hide = true, env = "OCAGENT_ENDPOINT")]
    ocagent_endpoint: Option<String>,
    #[arg(long, hide = true, env = "OCAGENT_INSECURE")]
    ocagent_insecure: Option<String>,
    #[arg(long, hide = true, env = "MOCK_CLOUD_API")]
    mock_cloud_api: Option<String>,
    /// Set by [`rewrite`]: flags of the old logger were dropped.
    #[arg(long, hide = true)]
    dropped_log_flags: Option<String>,
}

/// What was given, under which name, and what replaced it.
type Given = (&'static str, bool, &'static str);

impl Flags {
    /// What was given without effect, each with what replaced it.
    pub(crate) fn warnings(&self) -> Vec<String> {
        said(
            self.without_effect().into_iter().chain(self.of_tracing()),
            "has no effect",
        )
    }

    /// What was given and would be dangerous to ignore, each with what to do.
    pub(crate) fn problems(&self) -> Vec<String> {
        let is_linux = self
            .os
            .as_deref()
            .is_none_or(|os| os.eq_ignore_ascii_case("linux"));
        let mock = self.mock_cloud_api.as_deref().unwrap_or("false");
        let refused: [Given; 2] = [
            ("--os", !is_linux, "cells run Linux; remove the flag"),
            (
                "MOCK_CLOUD_API",
                !mock.is_empty() && switch(mock) != Ok(false),
                "real instances would be launched; use `kip dev`, or `cloud: {local: {}}`, or unset the variable",
            ),
        ];
        said(refused, "cannot be honoured")
    }

    fn without_effect(&self) -> [Given; 9] {
        let network = "cells hold no cluster credentials and run no kube-router; remove it";
        let queue = "requests to the API server are limited by its own fairness; remove it";
        [
            (
                "--debug-server",
                self.debug_server == Some(true),
                "use `kip get cells`, kubectl and --metrics-addr",
            ),
            (
                "--network-agent-secret",
                self.network_agent_secret.is_some(),
                network,
            ),
            (
                "--network-agent-kubeconfig",
                self.network_agent_kubeconfig.is_some(),
                network,
            ),
            (
                "--enable-node-lease",
                self.enable_node_lease.is_some(),
                "the lease is always kept; remove it",
            ),
            (
                "--full-resync-period",
                self.full_resync_period.is_some(),
                "changes are watched, not polled; remove it",
            ),
            (
                "--startup-timeout",
                self.startup_timeout.is_some(),
                "the node reports Ready when it is; remove it",
            ),
            ("--kube-api-qps", self.kube_api_qps.is_some(), queue),
            ("--kube-api-burst", self.kube_api_burst.is_some(), queue),
            (
                "--klog.*",
                self.dropped_log_flags.is_some(),
                "use --log-level and --log-format",
            ),
        ]
    }

    fn of_tracing(&self) -> [Given; 7] {
        let instead = "no traces are exported; use --log-format json and --metrics-addr";
        [
            ("--trace-exporter", !self.trace_exporter.is_empty(), instead),
            ("--trace-service-name", self.trace_service_name.is_some(), instead),
            ("--trace-tag", !self.trace_tag.is_empty(), instead),
            ("--trace-sample-rate", self.trace_sample_rate.is_some(), instead),
            ("--trace-zpages-addr", self.trace_zpages_addr.is_some(), instead),
            ("OCAGENT_ENDPOINT", self.ocagent_endpoint.is_some(), instead),
            ("OCAGENT_INSECURE", self.ocagent_insecure.is_some(), instead),
        ]
    }
}

fn said(all: impl IntoIterator<Item = Given>, what: &str) -> Vec<String> {
    all.into_iter()
        .filter(|(_, given, _)| *given)
        .map(|(name, _, instead)| format!("{name} {what}: {instead}"))
        .collect()
}

/// A switch in all the ways Go programs take one.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Flags of the old logger that stand alone.
const LOG_SWITCHES: [&str; 6] = [
    "logtostderr",
    "alsologtostderr",
    "add_dir_header",
    "skip_headers",
    "skip_log_headers",
    "one_output",
];

/// Turns a command line of the old Kip into one of today's: adds `run`, drops the flags of its logger.
pub(crate) fn rewrite(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut dropped = false;
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.to_str().and_then(|arg| arg.strip_prefix("--klog.")) else {
            kept.push(arg);
            continue;
        };
        dropped = true;
        let has_value = !flag.contains('=') && !LOG_SWITCHES.contains(&flag);
        let value_follows = args
            .peek()
            .and_then(|next| next.to_str())
            .is_some_and(|next| !next.starts_with('-'));
        if has_value && value_follows {
            args.next();
        }
    }
    // The old command had no subcommands that take a configuration: `kip --provider-config FILE`.
    let starts = |arg: Option<&OsString>, with: &str| {
        arg.and_then(|arg| arg.to_str())
            .is_some_and(|arg| arg.starts_with(with))
    };
    let mut first = 1;
    while let Some(flag) = ["--log-level", "--log-format"]
        .iter()
        .find(|flag| starts(kept.get(first), flag))
    {
        first += if starts(kept.get(first), &format!("{flag}=")) {
            1
        } else {
            2
        };
    }
    let names_config = kept.iter().any(|arg| starts(Some(arg), "--provider-config"));
    if names_config && starts(kept.get(first), "-") {
        kept.insert(1, "run".into());
    }
    if dropped {
        kept.push("--dropped-log-flags=true".into());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let args = rewrite(line.split(' ').map(OsString::from));
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        args.join(" ")
    }

    #[test]
    fn the_old_command_starts_the_controller_and_a_new_one_is_left_alone() {
        for (line, expected) in [
            ("kip --provider-config x", "kip run --provider-config x"),
            (
                "kip --log-level debug --provider-config x",
                "kip run --log-level debug --provider-config x",
            ),
            // The name of a command may be a value.
            (
                "kip --namespace dev --provider-config x",
                "kip run --namespace dev --provider-config x",
            ),
            (
                "kip --klog.v 5 --provider-config=x --klog.logtostderr",
                "kip run --provider-config=x --dropped-log-flags=true",
            ),
            ("kip run --provider-config x", "kip run --provider-config x"),
            (
                "kip --log-format=json --log-level debug size --provider-config x",
                "kip --log-format=json --log-level debug size --provider-config x",
            ),
            ("kip --help", "kip --help"),
            ("kip", "kip"),
        ] {
            assert_eq!(rewritten(line), expected);
        }
    }
}
