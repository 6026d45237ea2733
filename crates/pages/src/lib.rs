//! What customers see: pages, style, scripts and words, all compiled in, as functions of what they show.
//!
//! Nothing here decides anything, knows a customer, or speaks HTTP. A page has no inline script and no inline style; what a script needs to
//! know stands in it as JSON. Whatever is shown of a sale is what anybody may see.

mod encoded;
mod page;
mod theme;
mod words;

pub use crate::encoded::{Asset, Encoded};
pub use crate::page::{Availability, ItemView, PictureView, SaleView, Site, SiteError, SiteOptions};
pub use crate::theme::{Colour, Theme};
pub use crate::words::{ENGLISH_WORDS, Language, Words, WordsError};
