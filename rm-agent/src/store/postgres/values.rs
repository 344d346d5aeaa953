//! Binds values as the bytes that the database sent.

use bytes::Bytes;
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
};

use crate::at::image::Value;

/// `text`.
pub(super) const TEXT_OID: u32 = 25;

/// A value in its type's binary form (for `text`: its text).
#[derive(Debug)]
pub(super) struct RawValue {
    type_oid: u32,
    value: Option<Bytes>,
}

impl RawValue {
    pub(super) fn new(type_oid: u32, value: &Value) -> Self {
        Self {
            type_oid,
            value: value.clone(),
        }
    }
}

impl Type<Postgres> for RawValue {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(TEXT_OID))
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl Encode<'_, Postgres> for RawValue {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.value {
            Some(value) => {
                buffer.extend_from_slice(value);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.type_oid)))
    }
}
