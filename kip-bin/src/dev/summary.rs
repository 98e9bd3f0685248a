//! The table of what each pod got: offering, price, and how long each stage took.

use jiff::Timestamp;
use kip_core::driver::CellSnapshot;
use kip_core::model::Offering;

use crate::output;

/// One line a pod, and the reason below for those that wait or failed.
pub(super) fn table(pods: &[CellSnapshot], offerings: &[Offering]) -> String {
    let head = [
        "POD", "PHASE", "OFFERING", "PRICE", "DECIDED", "LAUNCHED", "AGENT UP", "IMAGE", "RUNNING", "IN ALL",
    ];
    let mut pods: Vec<&CellSnapshot> = pods.iter().collect();
    pods.sort_by_key(|pod| pod.pod.to_string());
    let rows: Vec<Vec<String>> = pods.iter().map(|pod| row(pod, offerings)).collect();
    let mut text = output::table(&head, &rows);
    for pod in pods.iter().filter(|pod| !pod.report.message.is_empty()) {
        text.push_str(&format!("{}: {}\n", pod.pod, pod.report.message));
    }
    text
}

fn row(pod: &CellSnapshot, offerings: &[Offering]) -> Vec<String> {
    let report = &pod.report;
    let bought = report
        .offering
        .as_ref()
        .and_then(|id| offerings.iter().find(|offering| offering.id == *id));
    let marks = &report.marks;
    let stages = [
        marks.seen_at,
        marks.decided_at,
        marks.launched_at,
        marks.connected_at,
        marks.images_at,
        marks.running_at,
    ];
    let mut row = vec![
        pod.pod.to_string(),
        format!("{:?}", report.phase),
        bought.map_or_else(|| "none".to_owned(), |offering| offering.id.to_string()),
        bought.map_or_else(|| "-".to_owned(), |offering| offering.price.to_string()),
    ];
    row.extend(stages.windows(2).map(|pair| match pair {
        [from, to] => between(*from, *to),
        _ => "-".to_owned(),
    }));
    row.push(between(marks.seen_at, marks.running_at));
    row
}

fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{} ms", to.duration_since(from).as_millis().max(0)),
        _ => "-".to_owned(),
    }
}
