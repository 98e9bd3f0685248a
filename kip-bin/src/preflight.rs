//! `kip preflight`: whether everything is there that `kip run` needs, without changing anything.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::args::SizeOutput;
use crate::aws_environment::AwsEnvironment;

const AFTER_HELP: &str = "\
Examples:
  kip preflight --provider-config provider.yaml
  kip preflight --provider-config provider.yaml --nodename kip-0 -o json

Asks the cloud with the credentials that are here, so run it where Kip will run. Nothing is made or changed: permissions are asked for
with DryRun. The cluster is needed to know the security group by its name; without one the rest is checked.

Exit code 1 when a check failed.";

/// Flags of `kip preflight`.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct PreflightArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    provider_config: PathBuf,
    /// Name of the virtual node.
    #[arg(
        long,
        env = "DEFAULTNODE_NAME",
        value_name = "NAME",
        default_value = "virtual-kubelet"
    )]
    nodename: String,
    /// The kubeconfig. Default: the service account when in a cluster, else ~/.kube/config.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Address at which the controller will be, as with `kip run`.
    #[arg(long, env = "VKUBELET_POD_IP", value_name = "IP")]
    node_ip: Option<IpAddr>,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: SizeOutput,
    #[command(flatten)]
    aws: AwsEnvironment,
}

/// Runs the command. The exit code is 1 when a check failed.
///
/// # Errors
/// When the configuration cannot be read, or its cloud has no checks.
pub(crate) fn run(args: &PreflightArgs) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "aws")]
    {
        aws::run(args)
    }
    #[cfg(not(feature = "aws"))]
    {
        let PreflightArgs {
            provider_config,
            nodename: _,
            kubeconfig: _,
            node_ip: _,
            output: _,
            aws: _,
        } = args;
        let loaded = crate::config::load(provider_config)?;
        anyhow::bail!(
            "cloud.{}: this build has no checks for it",
            loaded.config.cloud.name()
        )
    }
}

#[cfg(feature = "aws")]
mod aws {
    use std::process::ExitCode;

    use kip_aws::{AwsCloud, Check, Verdict};
    use kip_core::ids::{ClusterUid, NodeName};
    use serde_json::{Value, json};

    use super::PreflightArgs;
    use crate::args::SizeOutput;
    use crate::config::{self, Cloud};
    use crate::{output, system, wire};

    pub(super) fn run(args: &PreflightArgs) -> anyhow::Result<ExitCode> {
        let loaded = config::load(&args.provider_config)?;
        for warning in &loaded.warnings {
            output::note(&format!("warning: {warning}"));
        }
        let Cloud::Aws(aws) = &loaded.config.cloud else {
            anyhow::bail!(
                "cloud.{}: has no checks; `kip preflight` knows cloud.aws",
                loaded.config.cloud.name()
            );
        };
        let settings = loaded.config.ec2(aws);
        let contradictions = args.aws.contradictions(&loaded.config.cloud);
        let lines = wire::block_on(async {
            let cluster = cluster(args).await;
            let mut builder = AwsCloud::builder(settings);
            if let Ok(cluster) = &cluster {
                builder = builder.owner(cluster, &NodeName::new(&args.nodename));
            }
            if let Some(address) = args.node_ip.and_then(wire::own_address) {
                builder = builder.controller(address);
            }
            let checks = Box::pin(builder.preflight()).await;
            let mut lines = vec![of_cluster(&cluster)];
            lines.extend(contradictions.into_iter().map(of_contradiction));
            lines.extend(checks.iter().map(Line::of));
            Ok(lines)
        })?;
        output::print(&text(&lines, args.output)?)?;
        let failed = lines.iter().any(|line| line.verdict == Verdict::Failed);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    async fn cluster(args: &PreflightArgs) -> anyhow::Result<ClusterUid> {
        let connection = wire::client(args.kubeconfig.as_deref(), None).await?;
        system::cluster_uid(&connection.client).await
    }

    /// One line of the answer.
    struct Line {
        what: String,
        verdict: Verdict,
        found: String,
        remedy: Option<String>,
    }

    impl Line {
        fn of(check: &Check) -> Self {
            Self {
                what: check.what.clone(),
                verdict: check.verdict,
                found: check.found.clone(),
                remedy: check.remedy.clone(),
            }
        }
    }

    /// A cluster that cannot be reached from here may be reached from where Kip will run.
    fn of_cluster(cluster: &anyhow::Result<ClusterUid>) -> Line {
        let (verdict, found, remedy) = match cluster {
            Ok(uid) => (Verdict::Ok, uid.to_string(), None),
            Err(error) => (
                Verdict::Unknown,
                output::chain(error),
                Some("give --kubeconfig, or run this in the cluster".to_owned()),
            ),
        };
        Line {
            what: "cluster".to_owned(),
            verdict,
            found,
            remedy,
        }
    }

    /// `kip run` does not start with one.
    fn of_contradiction(found: String) -> Line {
        Line {
            what: "environment".to_owned(),
            verdict: Verdict::Failed,
            found,
            remedy: None,
        }
    }

    fn text(lines: &[Line], how: SizeOutput) -> anyhow::Result<String> {
        let failed = lines
            .iter()
            .filter(|line| line.verdict == Verdict::Failed)
            .count();
        match how {
            SizeOutput::Table => {
                let mut rows = Vec::new();
                for line in lines {
                    rows.push(vec![
                        line.what.clone(),
                        line.verdict.to_string(),
                        line.found.clone(),
                    ]);
                    if let Some(remedy) = &line.remedy {
                        rows.push(vec![String::new(), String::new(), format!("-> {remedy}")]);
                    }
                }
                let sum = match failed {
                    0 => "nothing is in the way".to_owned(),
                    1 => "1 check FAILED".to_owned(),
                    many => format!("{many} checks FAILED"),
                };
                Ok(format!(
                    "{}\n{sum}\n",
                    output::table(&["CHECK", "RESULT", "FOUND"], &rows)
                ))
            }
            SizeOutput::Json => {
                let checks: Vec<Value> = lines
                    .iter()
                    .map(|line| {
                        json!({
                            "check": line.what,
                            "result": line.verdict.to_string().to_lowercase(),
                            "found": line.found,
                            "remedy": line.remedy,
                        })
                    })
                    .collect();
                let answer = json!({"ok": failed == 0, "checks": checks});
                Ok(serde_json::to_string_pretty(&answer)? + "\n")
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn line(what: &str, verdict: Verdict, remedy: Option<&str>) -> Line {
            Line {
                what: what.into(),
                verdict,
                found: "found".into(),
                remedy: remedy.map(str::to_owned),
            }
        }

        #[test]
        fn what_failed_is_seen_at_a_glance_and_what_to_do_stands_under_it() {
            let lines = [
                line("region", Verdict::Ok, None),
                line("ec2:RunInstances", Verdict::Failed, Some("allow it")),
            ];
            assert_eq!(
                text(&lines, SizeOutput::Table).unwrap(),
                "CHECK              RESULT   FOUND\n\
                 region             ok       found\n\
                 ec2:RunInstances   FAILED   found\n\
                 \x20                           -> allow it\n\
                 \n1 check FAILED\n"
            );
            let json: Value = serde_json::from_str(&text(&lines, SizeOutput::Json).unwrap()).unwrap();
            assert_eq!(json["ok"], false);
            assert_eq!(json["checks"][1]["result"], "failed");
            assert_eq!(json["checks"][1]["remedy"], "allow it");
        }
    }
}
