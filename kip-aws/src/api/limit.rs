//! A limit for the size of answers, so that an endpoint that is not what it should be cannot fill the memory.

use aws_sdk_ec2::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// Bytes of one answer. The largest honest page, 100 products with all their terms, has a few MB.
const MOST: usize = 16 * 1024 * 1024;

/// Breaks answers off that are too large; the call then fails as one whose answer cannot be read.
#[derive(Debug)]
pub(crate) struct LimitedAnswers;

impl Intercept for LimitedAnswers {
    fn name(&self) -> &'static str {
        "LimitedAnswers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let whole = response.take_body();
        *response.body_mut() = SdkBody::from_body_1_x(Limited::new(whole, MOST));
        Ok(())
    }
}
