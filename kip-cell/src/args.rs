//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use kip_cell::{CREDENTIAL_PROVIDER_BIN_DIR, CREDENTIAL_PROVIDER_CONFIG_PATH, CredentialProviders};

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
    /// Configuration of image credential provider plugins, as the kubelet's (CredentialProviderConfig, YAML or JSON). Default:
    /// etc/kip/credential-providers.yaml under the root, if it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    /// Folder of the plugins' programs. Default: usr/libexec/kip/credential-providers under the root.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
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
        let default = || self.under_root(kip_cell_api::BOOT_CONFIG_PATH);
        self.config.clone().unwrap_or_else(default)
    }

    /// The image credential providers, where there are any.
    pub(crate) fn credential_providers(&self) -> CredentialProviders {
        let default = || {
            let path = self.under_root(CREDENTIAL_PROVIDER_CONFIG_PATH);
            path.exists().then_some(path)
        };
        let Some(config) = self.image_credential_provider_config.clone().or_else(default) else {
            return CredentialProviders::default();
        };
        let bin_dir = self.image_credential_provider_bin_dir.clone();
        let bin_dir = bin_dir.unwrap_or_else(|| self.under_root(CREDENTIAL_PROVIDER_BIN_DIR));
        CredentialProviders::load(&config, &bin_dir)
    }

    fn under_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
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
