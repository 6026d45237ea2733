//! What the vault keeps for a sale's page. It looks into none of it.

use std::collections::BTreeMap;

use domain::SaleOrdinal;

/// One file of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFile {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How its name ends. A picture has each width once in each format.
    pub format: String,
    /// The file.
    pub bytes: Vec<u8>,
}

/// A picture without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPicture {
    /// Its id.
    pub id: String,
    /// Width and height of its files, by ascending width.
    pub sizes: Vec<(u32, u32)>,
}

/// What all sales' pages show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptShowcases {
    /// How many changes there had been before this was read, or more.
    pub changes: u64,
    /// The settings of the sales that have some.
    pub settings: BTreeMap<SaleOrdinal, String>,
    /// The names of the human checks of the sales that have one.
    pub human_checks: BTreeMap<SaleOrdinal, String>,
    /// The pictures of items, by sale and the item's place in it.
    pub pictures: BTreeMap<(SaleOrdinal, u16), KeptPicture>,
}

impl KeptShowcases {
    /// Adds one size of a picture, as the stores list them: by ascending width.
    pub(super) fn add(&mut self, of: (SaleOrdinal, u16), id: String, size: (u32, u32)) {
        let picture = self.pictures.entry(of).or_insert_with(|| KeptPicture { id, sizes: Vec::new() });
        picture.sizes.push(size);
    }
}
