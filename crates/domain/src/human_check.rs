//! What a sale asks of a customer once, before the first pass, to tell people from programs.

/// A human check. A sale has one of them, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HumanCheck {
    /// The device computes for a moment; the person does nothing.
    ProofOfWork,
    /// A person reads letters in a picture, or hears them.
    Answer,
    /// The same with pictures that an edge may keep.
    Static,
}

impl HumanCheck {
    /// All of them, rising in what they ask of a person.
    pub const ALL: [Self; 3] = [Self::ProofOfWork, Self::Answer, Self::Static];

    /// What a sale without a check has, in the HTTP contract and on the command line.
    pub const NONE: &str = "none";

    /// The name in the vault, in the HTTP contract and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProofOfWork => "proof_of_work",
            Self::Answer => "answer",
            Self::Static => "static",
        }
    }

    /// The check of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }

    /// The name of a sale's check, [`HumanCheck::NONE`] where it has none.
    pub fn name_of(check: Option<Self>) -> &'static str {
        check.map_or(Self::NONE, Self::name)
    }
}
