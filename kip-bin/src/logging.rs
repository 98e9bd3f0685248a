//! Where log lines go: stderr, as text or JSON.

use anyhow::Context as _;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's subscriber. `directives` is a level (`info`) or directives (`info,kip_core=debug`).
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn install(directives: &str, format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(directives).with_context(|| {
        format!(
            "--log-level {directives:?}: write a level such as info, or directives such as info,kip_core=debug"
        )
    })?;
    // It calls every failed connection an error; whoever made the call says so again where it matters.
    let quiet = "kube_client=off".parse().context("a directive of our own")?;
    let filter = if directives.contains("kube_client") {
        filter
    } else {
        filter.add_directive(quiet)
    };
    // At trace it prints whole requests, and a launch has a cell's private key in its user-data. Whatever was asked for.
    let discreet = "aws_smithy_runtime=debug"
        .parse()
        .context("a directive of our own")?;
    let filter = filter.add_directive(discreet);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match format {
        Format::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("cannot install the log subscriber: {error}"))
}
