//! Names of GPU models: clouds, labels and people write the same model differently.

/// Whether two names mean the same model: `T4`, `nvidia-tesla-t4` and `NVIDIA T4` do, `T4` and `T4g` do not.
pub(super) fn same_model(one: &str, other: &str) -> bool {
    words(one).eq(words(other))
}

/// Lower-case letters and digits without maker and brand, one after the other.
fn words(name: &str) -> impl Iterator<Item = char> + '_ {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| {
            !["nvidia", "amd", "tesla"]
                .iter()
                .any(|maker| word.eq_ignore_ascii_case(maker))
        })
        .flat_map(str::chars)
        .map(|c| c.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_the_name_of_any_cloud_and_never_a_neighbour() {
        for name in ["T4", "t4", "nvidia-tesla-t4", "NVIDIA T4"] {
            assert!(same_model(name, "T4"), "{name}");
        }
        assert!(same_model("nvidia-rtx-pro-4500", "RTX PRO 4500"));
        for (one, other) in [("T4", "T4g"), ("L4", "L40S"), ("A100", "nvidia-a100-80gb")] {
            assert!(!same_model(one, other), "{one} is not {other}");
        }
    }
}
