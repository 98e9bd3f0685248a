//! The one call of STS that the fake answers beside EC2's, as `moto` does: who the caller is.

use super::wire::{element, wrap};

/// The call, which needs no permission.
pub(super) const ACTION: &str = "GetCallerIdentity";

/// The answer, or the refusal of a caller who is not let in.
pub(super) fn answer(refused: Option<(&str, &str)>) -> String {
    match refused {
        Some((code, message)) => {
            let error = element("Type", "Sender") + &element("Code", code) + &element("Message", message);
            wrap("ErrorResponse", &wrap("Error", &error))
        }
        None => {
            let result = element("Arn", "arn:aws:sts::123456789012:assumed-role/kip/test")
                + &element("UserId", "AROAEXAMPLE:test")
                + &element("Account", "123456789012");
            wrap(
                "GetCallerIdentityResponse",
                &wrap("GetCallerIdentityResult", &result),
            )
        }
    }
}
