//! DescribeInstanceAttribute: the user-data an instance was launched with.

use super::state::{Answer, State};
use super::wire::{Params, element, wrap};

impl State {
    pub(super) fn describe_attribute(&self, params: &Params) -> Answer {
        let id = params.get("InstanceId").unwrap_or_default();
        let Some(machine) = self.instances.get(id) else {
            return Err((
                "InvalidInstanceID.NotFound".to_owned(),
                format!("The instance ID '{id}' does not exist"),
            ));
        };
        match params.get("Attribute") {
            Some("userData") => {
                let user_data = machine.params.get("UserData").unwrap_or_default();
                Ok(element("instanceId", id) + &wrap("userData", &element("value", user_data)))
            }
            other => Err((
                "InvalidParameterValue".to_owned(),
                format!(
                    "Value ({}) for parameter attribute is invalid.",
                    other.unwrap_or_default()
                ),
            )),
        }
    }
}
