//! What documents show of the machine is what the machine is.

use kip_core::machine::diagram;

#[test]
fn the_diagram_in_the_architecture_document_is_generated_from_the_edge_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("ARCHITECTURE.md is at the top of the repository");
    let (begin, end) = ("<!-- machine:begin -->", "<!-- machine:end -->");
    let from = text.find(begin).expect("the begin marker is there") + begin.len();
    let to = text.find(end).expect("the end marker is there");
    let wanted = format!("\n```mermaid\n{}```\n", diagram());
    assert_eq!(
        &text[from..to],
        wanted,
        "replace what is between the markers by:\n{wanted}"
    );
}
