//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Runs one pod on this cell and reports to the controller.
///
/// The cell's identity comes from its boot configuration. Ending the agent leaves the pod's containers running; a new
/// agent takes them over.
#[derive(Debug, Parser)]
#[command(
    name = "kip-cell",
    version,
    after_help = "Example:\n  kip-cell --root / --log-format json"
)]
pub(crate) struct Args {
    /// The cell's root folder, in which the boot configuration lies at etc/kip/cell.json.
    #[arg(long, default_value = "/", value_name = "FOLDER")]
    pub(crate) root: PathBuf,
    /// Read the boot configuration from this file instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the log lines on standard error. RUST_LOG sets which are shown (default: info).
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// Where the boot configuration is read.
    pub(crate) fn config_path(&self) -> PathBuf {
        let default = || {
            self.root
                .join(kip_cell_api::BOOT_CONFIG_PATH.trim_start_matches('/'))
        };
        self.config.clone().unwrap_or_else(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_lies_under_the_root() {
        let args = Args::parse_from(["kip-cell", "--root", "/cell"]);
        assert_eq!(args.config_path(), PathBuf::from("/cell/etc/kip/cell.json"));
        let args = Args::parse_from(["kip-cell", "--config", "/x.json"]);
        assert_eq!(args.config_path(), PathBuf::from("/x.json"));
    }
}
