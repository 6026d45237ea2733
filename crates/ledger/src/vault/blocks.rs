//! What the vault keeps of the block list. It looks into none of it.

/// One entry of the block list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBlock {
    /// Its id; made of kind and target, so a target has one entry at most.
    pub id: String,
    /// What the target is.
    pub kind: String,
    /// Who is blocked.
    pub target: String,
    /// Why, in its maker's words.
    pub reason: String,
    /// Which admin token made it.
    pub made_by: String,
    /// When, Unix milliseconds.
    pub created_at: u64,
    /// When it ends, Unix milliseconds; `None`: never by itself.
    pub expires_at: Option<u64>,
}

/// The block list of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptBlocks {
    /// How many changes there had been before this was read, or more.
    pub changes: u64,
    /// The entries by age, those that have expired perhaps among them.
    pub blocks: Vec<KeptBlock>,
}
