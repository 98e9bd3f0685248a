//! `kip get cells`: what runs, on what, at which price.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use kip_core::kubelet::Cell;
use kip_core::model::Price;
use kube::Api;
use kube::api::ListParams;

use crate::args::{GetArgs, GetOutput};
use crate::{output, wire};

/// Runs the command.
///
/// # Errors
/// When the cluster cannot be reached, or knows no cells.
pub(crate) fn cells(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let cells = wire::block_on(async {
        let connection = wire::client(args.kubeconfig.as_deref(), None).await?;
        let list = Api::<Cell>::all(connection.client)
            .list(&ListParams::default())
            .await;
        match list {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                anyhow::bail!(
                    "the cluster knows no cells: Kip has not run in it, or `kip crd` was not applied"
                )
            }
            Err(error) => Err(error).context("cannot list the cells"),
        }
    })?;
    match args.output {
        GetOutput::Json => output::line(&serde_json::to_string_pretty(&serde_json::json!({
            "apiVersion": "v1", "kind": "List", "items": cells,
        }))?)?,
        GetOutput::Table | GetOutput::Wide if cells.is_empty() => output::note("no cells"),
        form => output::print(&table(&cells, form == GetOutput::Wide, Timestamp::now()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(cells: &[Cell], wide: bool, now: Timestamp) -> String {
    let mut head = vec!["CELL", "POD", "PHASE", "OFFERING", "PRICE", "AGE"];
    if wide {
        head.extend(["NODE", "INSTANCE", "ADDRESS", "POD-ADDRESS", "ATTEMPT", "START"]);
    }
    let rows: Vec<Vec<String>> = cells.iter().map(|cell| row(cell, wide, now)).collect();
    let mut text = output::table(&head, &rows);
    if cells.len() > 1 {
        let total = Price(cells.iter().map(|cell| cell.spec.price_micros).sum());
        text.push_str(&format!("\n{} cells, {total} together\n", cells.len()));
    }
    text
}

fn row(cell: &Cell, wide: bool, now: Timestamp) -> Vec<String> {
    let spec = &cell.spec;
    let status = cell.status.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut row = vec![
        or_dash(cell.metadata.name.clone()),
        format!("{}/{}", spec.pod.namespace, spec.pod.name),
        status.map_or_else(|| "Launching".to_owned(), |status| format!("{:?}", status.phase)),
        format!(
            "{}/{}/{}",
            spec.offering.instance_type, spec.offering.zone, spec.offering.capacity_type
        ),
        Price(spec.price_micros).to_string(),
        output::age(Duration::try_from(now.duration_since(spec.issued_at)).unwrap_or_default()),
    ];
    if wide {
        // How long it took from the decision until every container ran.
        let running = status.and_then(|status| status.marks.running_at);
        let start = running.map(|at| format!("{} ms", at.duration_since(spec.issued_at).as_millis()));
        row.extend([
            spec.node.clone(),
            or_dash(status.and_then(|status| status.instance.clone())),
            or_dash(status.and_then(|status| status.management_address.clone())),
            or_dash(status.and_then(|status| status.pod_address.clone())),
            spec.attempt.to_string(),
            or_dash(start),
        ]);
    }
    row
}
