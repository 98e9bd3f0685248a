//! The command line of the old Kip: accepted, so that an existing deployment starts; what lost its meaning says what replaced it.

use std::ffi::OsString;

use clap::Args;

/// Flags of the old Kip without a meaning.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Flags {
    #[arg(long, hide = true, default_value = "kip", value_parser = ["kip"])]
    provider: String,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    debug_server: Option<String>,
    #[arg(long, hide = true)]
    network_agent_secret: Option<String>,
    #[arg(long, hide = true)]
    network_agent_kubeconfig: Option<String>,
    #[arg(long, hide = true)]
    instance_data_path: Option<String>,
    #[arg(long, hide = true)]
    os: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    enable_node_lease: Option<String>,
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
    #[arg(long, hide = true, env = "MOCK_CLOUD_API")]
    mock_cloud_api: Option<String>,
    /// Set by [`rewrite`]: flags of the old logger were dropped.
    #[arg(long, hide = true)]
    dropped_log_flags: Option<String>,
}

impl Flags {
    /// What was given without effect, each with what replaced it.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let Self {
            provider: _,
            debug_server,
            network_agent_secret,
            network_agent_kubeconfig,
            instance_data_path,
            os,
            enable_node_lease,
            full_resync_period,
            startup_timeout,
            kube_api_qps,
            kube_api_burst,
            trace_exporter,
            trace_service_name,
            trace_tag,
            trace_sample_rate,
            trace_zpages_addr,
            mock_cloud_api,
            dropped_log_flags,
        } = self;
        let tracing = "use --log-format json and /metrics";
        let network = "cells hold no cluster credentials";
        let queue = "requests to the API server are limited by its own fairness";
        let is_linux = os.as_deref().is_none_or(|os| os.eq_ignore_ascii_case("linux"));
        [
            ("--debug-server", debug_server.is_some(), "use --metrics-addr"),
            ("--network-agent-secret", network_agent_secret.is_some(), network),
            (
                "--network-agent-kubeconfig",
                network_agent_kubeconfig.is_some(),
                network,
            ),
            (
                "--instance-data-path",
                instance_data_path.is_some(),
                "prices come from the provider",
            ),
            ("--os", !is_linux, "cells run Linux"),
            (
                "--enable-node-lease",
                enable_node_lease.is_some(),
                "the lease is always kept",
            ),
            (
                "--full-resync-period",
                full_resync_period.is_some(),
                "changes are watched, not polled",
            ),
            (
                "--startup-timeout",
                startup_timeout.is_some(),
                "the node reports Ready when it is",
            ),
            ("--kube-api-qps", kube_api_qps.is_some(), queue),
            ("--kube-api-burst", kube_api_burst.is_some(), queue),
            ("--trace-exporter", !trace_exporter.is_empty(), tracing),
            ("--trace-service-name", trace_service_name.is_some(), tracing),
            ("--trace-tag", !trace_tag.is_empty(), tracing),
            ("--trace-sample-rate", trace_sample_rate.is_some(), tracing),
            ("--trace-zpages-addr", trace_zpages_addr.is_some(), tracing),
            (
                "MOCK_CLOUD_API",
                mock_cloud_api.is_some(),
                "use `cloud: {local: {}}` or `kip dev`",
            ),
            (
                "--klog.*",
                dropped_log_flags.is_some(),
                "use --log-level and --log-format",
            ),
        ]
        .into_iter()
        .filter(|(_, given, _)| *given)
        .map(|(flag, _, instead)| format!("{flag} has no effect: {instead}"))
        .collect()
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
    let text = |arg: &OsString| arg.to_str().map(str::to_owned).unwrap_or_default();
    let begins_with_flag = kept.get(1).is_some_and(|first| text(first).starts_with('-'));
    let names_config = kept.iter().any(|arg| text(arg).starts_with("--provider-config"));
    let names_command = kept
        .iter()
        .any(|arg| ["run", "config", "size"].contains(&text(arg).as_str()));
    if begins_with_flag && names_config && !names_command {
        kept.insert(1, "run".into());
    }
    if dropped {
        kept.push("--dropped-log-flags=true".into());
    }
    kept
}
