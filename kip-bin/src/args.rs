//! The command line: every flag with its default and what it does.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::aws_environment::AwsEnvironment;
use crate::{boot, catalogue, completion, config, get, legacy, logging, output, preflight, run, size};

const AFTER_HELP: &str = "\
Examples:
  kip dev --keep                                  try it: a Kubernetes API and cells on this machine
  kip run --provider-config provider.yaml         serve a cluster
  kip config check --provider-config provider.yaml
  kip size -f pod.yaml                            what would this pod cost?
  kip get cells -o wide

Exit codes: 0 done; 1 it failed, stderr says why; 2 the command line is wrong.";

/// A virtual node that gives each pod its own cloud instance.
#[derive(Debug, Parser)]
#[command(name = "kip", version, about, after_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Args {
    /// What is logged: a level (error, warn, info, debug, trace) or directives such as `info,kip_core=debug`.
    #[arg(
        long,
        global = true,
        env = "KIP_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log_level: String,
    /// How log lines look on stderr.
    #[arg(long, global = true, env = "KIP_LOG_FORMAT", value_enum, default_value_t)]
    log_format: logging::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try Kip on this machine: a Kubernetes API, the controller, and cells as network namespaces with real containers.
    #[cfg(feature = "local")]
    Dev(DevArgs),
    /// Serve a Kubernetes cluster as one virtual node.
    Run(Box<RunArgs>),
    /// Check that everything is there that `kip run` needs: credentials, network, images, permissions. Changes nothing.
    Preflight(preflight::PreflightArgs),
    /// Check or print the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show which offering each pod would get, what it costs, and why others were not taken.
    Size(SizeArgs),
    /// Show what is known of what a cloud sells: of which day it is, how many instance types it has, and what they cost.
    Catalogue(CatalogueArgs),
    /// Show what runs.
    Get {
        #[command(subcommand)]
        command: GetCommand,
    },
    /// Print the definition of the Cell resource, for an administrator to install.
    #[command(after_help = "Example:\n  kip crd | kubectl apply --server-side --force-conflicts -f -")]
    Crd,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  source <(kip completion bash)")]
    Completion {
        /// The shell.
        #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
        shell: Shell,
    },
    /// Print the version.
    Version,
    /// The old Kip's list of providers, of which there is one.
    #[command(hide = true)]
    Providers {
        /// Whether this one is there.
        name: Option<String>,
    },
}

const DEV_HELP: &str = "\
Examples:
  sudo kip dev --keep                             serve until Ctrl-C; prints how to point kubectl at it
  sudo kip dev -f examples/batch.yaml             run the pods of a manifest, print what they got, clean up
  sudo kip dev                                    check that this machine can run cells

Needs root, containerd, runc, the CNI plugins, iproute2 and nftables; what is missing is named. Everything it made is removed at the
end, save the images it unpacked into the data folder; what a killed `kip dev` left there is removed at the start.";

/// Flags of `kip dev`.
#[derive(Debug, Parser)]
#[command(after_help = DEV_HELP)]
pub(crate) struct DevArgs {
    /// Serve until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Apply these manifests once the node is ready; without --keep, wait until their pods run, or have ended if they are
    /// never restarted.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Where to write the kubeconfig. Default: `kubeconfig` in the data folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where the Kubernetes API listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Image archives (docker save, OCI) every cell has from birth, so that pods need no registry.
    #[arg(long = "image-archive", value_name = "FILE")]
    pub(crate) image_archives: Vec<PathBuf>,
    /// Where everything is kept while it runs. Two `kip dev` need two folders.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kip/dev")]
    pub(crate) data_dir: PathBuf,
    /// The agent's binary. Default: `kip-cell` beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) agent: Option<PathBuf>,
    /// How long a cell pretends to boot, such as 2s, to feel like a cloud.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(crate) boot_delay: Duration,
    /// Name of the virtual node.
    #[arg(long, value_name = "NAME", default_value = "kip")]
    pub(crate) nodename: String,
    /// Where /metrics, /healthz and /readyz are served, over plain HTTP. Default: nowhere.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics_addr: Option<SocketAddr>,
}

const RUN_HELP: &str = "\
Examples:
  kip run --provider-config /etc/kip/provider.yaml                  in a cluster, by its service account
  kip run --provider-config provider.yaml --kubeconfig ~/.kube/config --nodename kip-test

Flags and environment variables of the old Kip are accepted, or say what replaced them: docs/migrating-from-kip.md. SIGTERM and SIGINT end it
gracefully: no new launches, launches under way are recorded, and the pods run on until a controller is back. Two replicas make that a
moment: one acts, the other stands by and takes over 12 seconds after the first was killed, or 2 seconds after it ended in good order.";

/// Headings of the help of `kip run`.
const CLUSTER: &str = "The cluster";
const NODE: &str = "The virtual node";
const ENDPOINT: &str = "The kubelet's endpoint";

/// Flags of `kip run`.
#[derive(Debug, Parser)]
#[command(after_help = RUN_HELP)]
pub(crate) struct RunArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) provider_config: PathBuf,
    /// The kubeconfig. Default: the service account when in a cluster, else ~/.kube/config.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", help_heading = CLUSTER)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Address of the API server, instead of the kubeconfig's.
    #[arg(
        long = "master",
        env = "MASTER_URI",
        value_name = "URL",
        hide_env_values = true,
        help_heading = CLUSTER
    )]
    pub(crate) master: Option<String>,
    /// Name of the virtual node.
    #[arg(
        long,
        env = "DEFAULTNODE_NAME",
        value_name = "NAME",
        default_value = "virtual-kubelet",
        help_heading = NODE
    )]
    pub(crate) nodename: String,
    /// Serve only pods of this namespace. Default: all.
    #[arg(long, value_name = "NAMESPACE", help_heading = CLUSTER)]
    pub(crate) namespace: Option<String>,
    /// Namespace of Kip's own Secret `kip-cell-ca`. Default: the service account's when in a cluster, else `kip`.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", help_heading = CLUSTER)]
    pub(crate) kip_namespace: Option<String>,
    /// Addresses of the cluster's DNS service. Default: the cluster address of the Service kube-system/kube-dns.
    #[arg(long, value_name = "IP", value_delimiter = ',', help_heading = CLUSTER)]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", help_heading = CLUSTER)]
    pub(crate) cluster_domain: String,
    /// Address at which the API server reaches this process. Default: the address of the route to the API server.
    #[arg(long, env = "VKUBELET_POD_IP", value_name = "IP", help_heading = ENDPOINT)]
    pub(crate) node_ip: Option<IpAddr>,
    /// Port of the kubelet's HTTPS endpoint; 0 takes a free one.
    #[arg(long, env = "KUBELET_PORT", value_name = "PORT", default_value_t = 10250, help_heading = ENDPOINT)]
    pub(crate) kubelet_port: u16,
    /// Serving certificate of that endpoint, PEM. Default: a self-signed one.
    #[arg(
        long,
        env = "APISERVER_CERT_LOCATION",
        value_name = "FILE",
        requires = "kubelet_key",
        help_heading = ENDPOINT
    )]
    pub(crate) kubelet_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        env = "APISERVER_KEY_LOCATION",
        value_name = "FILE",
        requires = "kubelet_certificate",
        help_heading = ENDPOINT
    )]
    pub(crate) kubelet_key: Option<PathBuf>,
    /// Authority of the API server's client certificate, PEM. Default: from the ConfigMap kube-system/extension-apiserver-authentication.
    #[arg(long, value_name = "FILE", help_heading = ENDPOINT)]
    pub(crate) client_ca: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served, over plain HTTP. Default: nowhere.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics_addr: Option<MetricsAddress>,
    /// Key of the node's taint.
    #[arg(
        long,
        env = "VKUBELET_TAINT_KEY",
        value_name = "KEY",
        default_value = "virtual-kubelet.io/provider",
        help_heading = NODE
    )]
    pub(crate) taint: String,
    /// Value of the node's taint.
    #[arg(
        long,
        env = "VKUBELET_TAINT_VALUE",
        value_name = "VALUE",
        default_value = "kip",
        help_heading = NODE
    )]
    pub(crate) taint_value: String,
    /// Effect of the node's taint: NoSchedule, PreferNoSchedule or NoExecute.
    #[arg(
        long,
        env = "VKUBELET_TAINT_EFFECT",
        value_name = "EFFECT",
        default_value = "NoSchedule",
        help_heading = NODE
    )]
    pub(crate) taint_effect: String,
    /// Give the node no taint.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set, require_equals = true, value_name = "BOOL", value_parser = legacy::switch, help_heading = NODE)]
    pub(crate) disable_taint: bool,
    /// Pods worked on at the same time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) pod_sync_workers: usize,
    #[command(flatten)]
    pub(crate) leader: LeaderArgs,
    #[command(flatten)]
    pub(crate) aws: AwsEnvironment,
    #[command(flatten)]
    pub(crate) legacy: legacy::Flags,
}

/// Flags about the election of the one controller of a node that acts; all replicas need the same.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Leader election")]
pub(crate) struct LeaderArgs {
    /// Act only while holding the Lease `kip-<nodename>`, so that a second replica can stand by and take over.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set, require_equals = true, value_name = "BOOL", value_parser = legacy::switch)]
    pub(crate) leader_elect: bool,
    /// How long a replica that stands by waits after the leader's last renewal before it takes over; whole seconds.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub(crate) leader_elect_lease_duration: Duration,
    /// How long the leader acts without a renewal before it ends itself; shorter than the lease.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "7s")]
    pub(crate) leader_elect_renew_deadline: Duration,
    /// How often the leader renews, and the others look; shorter than the renew deadline.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(crate) leader_elect_retry_period: Duration,
    /// Namespace of that Lease. Default: that of --kip-namespace.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) leader_elect_resource_namespace: Option<String>,
}

/// Where plain HTTP is served: `host:port`, or `:port` for all addresses as Go programs write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetricsAddress(pub(crate) SocketAddr);

impl std::str::FromStr for MetricsAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}").parse(),
            None => text.parse(),
        }
        .map(Self)
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every problem of a configuration at once; exit 0 when there is none.
    Check(ConfigArgs),
    /// Print the effective configuration, defaults filled in, secrets masked.
    Print(ConfigArgs),
}

#[derive(Debug, Parser)]
struct ConfigArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    provider_config: PathBuf,
}

const SIZE_HELP: &str = "\
Examples:
  kip size -f pod.yaml
  kubectl get pods -o yaml | kip size -f - -o json
  kip size -f deployment.yaml --provider-config provider.yaml
  kip size -f pod.yaml --cloud aws --region us-east-1     without an account
  kip size -f pod.yaml --provider-config provider.yaml --live     by prices of now, where the configured subnets and images are

Reads Pods, Lists of them, and the pod templates of Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs.
Exit code 1 when a pod fits nothing.";

/// Flags of `kip size`.
#[derive(Debug, Parser)]
#[command(after_help = SIZE_HELP)]
pub(crate) struct SizeArgs {
    /// Manifests; `-` is stdin.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) manifests: Vec<PathBuf>,
    /// The configuration. Default: this machine as the cloud, with its price list.
    #[arg(long, value_name = "FILE")]
    pub(crate) provider_config: Option<PathBuf>,
    /// Choose from what is compiled in about this cloud, whatever cloud the configuration names: takes no credentials.
    #[arg(long, value_enum, requires = "region")]
    pub(crate) cloud: Option<CloudName>,
    /// The cloud's region, such as us-east-1.
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Choose as the old Kip did: no reserve, and only the families it knew (with --cloud aws).
    #[arg(long, requires = "cloud")]
    pub(crate) classic: bool,
    /// Ask the cloud, with credentials, for its types and prices of now; with --provider-config also for the zones of its subnets and the
    /// architectures of its images.
    #[arg(long)]
    pub(crate) live: bool,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) output: SizeOutput,
    /// How many rejected offerings to show for each pod in the table; 0 shows none.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rejected: usize,
}

const CATALOGUE_HELP: &str = "\
Examples:
  kip catalogue --cloud aws                                       of which day it is
  kip catalogue --cloud aws --region eu-west-1                    what the region sells
  kip catalogue --cloud aws --region us-east-1 --types 'c7g.*'    sizes and prices
  kip catalogue --cloud aws --region us-east-1 --live             what EC2 says now, and what of it is new

Needs no credentials but for --live. A controller begins with this and replaces it by what the cloud says.";

/// Flags of `kip catalogue`.
#[derive(Debug, Parser)]
#[command(after_help = CATALOGUE_HELP)]
pub(crate) struct CatalogueArgs {
    /// The cloud.
    #[arg(long, value_enum)]
    pub(crate) cloud: CloudName,
    /// A region, to say what it sells.
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// List the instance types of the region that match this name or pattern.
    #[arg(long, value_name = "PATTERN", requires = "region")]
    pub(crate) types: Option<String>,
    /// Ask the cloud, with credentials, what it sells now, and say what of it is new. The exit code is 1 when it does not tell all of it.
    #[arg(long)]
    pub(crate) live: bool,
    /// The configuration whose region, credentials and endpoints are used to ask. Default: those of the environment.
    #[arg(long, value_name = "FILE", requires = "live")]
    pub(crate) provider_config: Option<PathBuf>,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) output: SizeOutput,
}

/// A cloud about which something is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CloudName {
    /// Amazon EC2.
    Aws,
}

/// How `kip size`, `kip catalogue` and `kip preflight` print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SizeOutput {
    /// For people.
    #[default]
    Table,
    /// Everything, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum GetCommand {
    /// List the cells: which pod each runs, on what, at which price, since when.
    #[command(
        after_help = "Examples:\n  kip get cells\n  kip get cells -o wide --kubeconfig /var/lib/kip/dev/kubeconfig"
    )]
    Cells(GetArgs),
}

/// Flags of `kip get`.
#[derive(Debug, Parser)]
pub(crate) struct GetArgs {
    /// The kubeconfig. Default: the service account when in a cluster, else ~/.kube/config.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) output: GetOutput,
}

/// How `kip get` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetOutput {
    /// For people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// Everything, for programs.
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| format!("{text:?} is no duration such as 2s or 500ms"))
}

/// The command line, in which a variable that is set to nothing counts as not set: manifests write `value: ""`.
pub(crate) fn command() -> clap::Command {
    Args::command().mut_subcommands(|command| {
        command.mut_args(|arg| {
            let name = arg.get_env();
            let is_empty = name
                .and_then(std::env::var_os)
                .is_some_and(|value| value.is_empty());
            if is_empty {
                arg.env(clap::builder::Resettable::Reset)
            } else {
                arg
            }
        })
    })
}

impl Args {
    /// Reads the command line. `Err` carries the exit code when help, the version or a mistake was printed.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        let matches = command().try_get_matches_from(legacy::rewrite(args));
        matches
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| {
                // Nothing can be done when the terminal is gone.
                let _ = error.print();
                u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
            })
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// Whatever went wrong, for the user to read.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Self {
            log_level,
            log_format,
            command,
        } = self;
        let logs = || logging::install(&log_level, log_format);
        match command {
            #[cfg(feature = "local")]
            Command::Dev(args) => {
                logs()?;
                crate::dev::run(args)
            }
            Command::Run(args) => {
                logs()?;
                run::run(*args)
            }
            Command::Preflight(args) => preflight::run(&args),
            Command::Config { command } => config_command(command),
            Command::Size(args) => size::run(&args),
            Command::Catalogue(args) => catalogue::run(&args),
            Command::Get {
                command: GetCommand::Cells(args),
            } => get::cells(&args),
            Command::Crd => {
                output::print(&kip_core::kubelet::cells_crd_yaml())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Completion { shell } => completion::print(shell),
            Command::Version => {
                output::line(&format!("kip {}", env!("CARGO_PKG_VERSION")))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Providers { name } => match name.as_deref() {
                None | Some("kip") => {
                    output::line("kip")?;
                    Ok(ExitCode::SUCCESS)
                }
                Some(other) => anyhow::bail!("there is no provider {other:?}, only kip"),
            },
        }
    }
}

fn config_command(command: ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check(ConfigArgs { provider_config }) => {
            let loaded = config::load(&provider_config)?;
            for warning in &loaded.warnings {
                output::note(&format!("warning: {warning}"));
            }
            boot::options(&loaded.config)?;
            let file = provider_config.display();
            output::line(&match loaded.warnings.len() {
                0 => format!("{file} is good"),
                1 => format!("{file} is good, one key in it has no effect"),
                count => format!("{file} is good, {count} keys in it have no effect"),
            })?;
        }
        ConfigCommand::Print(ConfigArgs { provider_config }) => {
            output::print(&config::print(&config::load(&provider_config)?.config)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `kip` reads from these arguments of an old command line.
#[cfg(all(test, feature = "aws", feature = "local"))]
pub(crate) fn run_args(args: &[&str]) -> Result<Box<RunArgs>, clap::Error> {
    let line = ["kip"].iter().chain(args).map(OsString::from);
    match Args::try_parse_from(legacy::rewrite(line))?.command {
        Command::Run(run) => Ok(run),
        other => panic!("not `run`: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_command_of_the_old_deployment_still_starts_the_controller() {
        let old = [
            "kip",
            "--provider",
            "kip",
            "--provider-config",
            "/etc/kip/provider.yaml",
            "--network-agent-secret",
            "kube-system/kip-network-agent",
            "--disable-taint",
            "--klog.logtostderr",
            "--klog.v=2",
            "--klog.v",
            "5",
            "--metrics-addr",
            ":10255",
            "--nodename",
            "kip-0",
        ];
        let args = Args::try_parse_from(legacy::rewrite(old.map(OsString::from))).unwrap();
        let Command::Run(run) = args.command else {
            panic!("not `run`: {args:?}");
        };
        assert!(run.disable_taint);
        assert_eq!(run.nodename, "kip-0");
        assert_eq!(run.metrics_addr.unwrap().0.port(), 10255);
        let warnings = run.legacy.warnings();
        assert!(
            warnings.iter().any(|w| w.contains("--network-agent-secret")),
            "{warnings:?}"
        );
    }
}
