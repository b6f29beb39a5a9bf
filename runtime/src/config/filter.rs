//! What a consumer wants of its topics, read from type, key and headers alone.

/// Keys are ANDed, values ORed; a missing header never matches. An empty filter wants everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub conditions: Vec<Condition>,
}

/// One key of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub field: Field,
    /// At least one. The condition holds where one of the wanted matches (or none is wanted) and
    /// none of the unwanted (`!…`) does.
    pub values: Vec<Value>,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The header `ce_type`, else `type`, else `event-type`.
    Type,
    Key,
    /// The header of this name.
    Header(String),
}

/// A text in which `*` stands for any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub pattern: String,
    /// Written with a `!` in front.
    pub unwanted: bool,
}
