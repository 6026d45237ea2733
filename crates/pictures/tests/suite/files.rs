//! Files to upload, made here byte by byte, with what a camera writes into them.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, RgbaImage};

/// Stands in every part that a file may carry beside its pixels.
pub(crate) const PLANTED: &str = "GPS 52.5200N 13.4050E, Anna's camera";

pub(crate) const RED: [u8; 3] = [220, 20, 20];
pub(crate) const GREEN: [u8; 3] = [20, 200, 20];
pub(crate) const BLUE: [u8; 3] = [20, 20, 220];
pub(crate) const WHITE: [u8; 3] = [250, 250, 250];

/// A picture with a colour in each quarter: at the top red and green, below blue and white.
pub(crate) fn quarters(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb(match (x < width / 2, y < height / 2) {
            (true, true) => RED,
            (false, true) => GREEN,
            (true, false) => BLUE,
            (false, false) => WHITE,
        })
    })
}

/// Every pixel drawn on its own: nothing is harder to make small.
pub(crate) fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pixels = vec![0; (width * height * 3) as usize];
    random.fill(&mut pixels);
    RgbImage::from_raw(width, height, pixels).unwrap()
}

pub(crate) fn file(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A WebP file that moves: its first picture red, its second green.
pub(crate) fn moving(width: u32, height: u32) -> Vec<u8> {
    let frame =
        |[red, green, blue]: [u8; 3]| RgbaImage::from_pixel(width, height, image::Rgba([red, green, blue, 255]));
    let frames = [frame(RED), frame(GREEN)];
    let config = webp::WebPConfig::new().unwrap();
    let mut encoder = webp::AnimEncoder::new(width, height, &config);
    for (picture, at) in frames.iter().zip([0, 100]) {
        encoder.add_frame(webp::AnimFrame::from_rgba(picture, width, height, at));
    }
    encoder.try_encode().unwrap().to_vec()
}

/// An EXIF block with an orientation, and a text of the camera's.
pub(crate) fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    block.extend([orientation, 0, 0, 0]);
    block.extend([0; 4]);
    block.extend(PLANTED.as_bytes());
    block
}

/// The JPEG with an EXIF block, an XMP packet, a colour profile and a comment.
pub(crate) fn jpeg_with_metadata(picture: RgbImage, orientation: u8) -> Vec<u8> {
    let plain = file(picture, ImageFormat::Jpeg);
    let mut marked = plain[..2].to_vec();
    let mut segment = |mark: u8, name: &[u8], content: &[u8]| {
        marked.extend([0xff, mark]);
        marked.extend(((2 + name.len() + content.len()) as u16).to_be_bytes());
        marked.extend(name);
        marked.extend(content);
    };
    segment(0xe1, b"Exif\0\0", &exif(orientation));
    segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0", PLANTED.as_bytes());
    segment(0xe2, b"ICC_PROFILE\0\x01\x01", PLANTED.as_bytes());
    segment(0xfe, b"", PLANTED.as_bytes());
    marked.extend(&plain[2..]);
    marked
}

/// The PNG with an EXIF block and a text.
pub(crate) fn png_with_metadata(picture: RgbImage, orientation: u8) -> Vec<u8> {
    let plain = file(picture, ImageFormat::Png);
    // Behind the signature and the header.
    let (head, rest) = plain.split_at(8 + 25);
    let texts = [chunk(b"eXIf", &exif(orientation)), chunk(b"tEXt", format!("Comment\0{PLANTED}").as_bytes())];
    [head, &texts.concat(), rest].concat()
}

/// A WebP file with an EXIF block and an XMP packet.
pub(crate) fn webp_with_metadata(picture: &RgbImage, orientation: u8) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let plain = webp::Encoder::from_rgb(picture, width, height).encode_lossless().to_vec();
    let part = |name: &[u8], content: &[u8]| {
        let padding = vec![0; content.len() % 2];
        [name, &(content.len() as u32).to_le_bytes(), content, &padding].concat()
    };
    let mut extended = vec![0x08 | 0x04, 0, 0, 0];
    extended.extend(&(width - 1).to_le_bytes()[..3]);
    extended.extend(&(height - 1).to_le_bytes()[..3]);
    let content = [
        b"WEBP".to_vec(),
        part(b"VP8X", &extended),
        plain[12..].to_vec(),
        part(b"EXIF", &exif(orientation)),
        part(b"XMP ", PLANTED.as_bytes()),
    ];
    part(b"RIFF", &content.concat())
}

/// A PNG that claims a size, with four channels of so many bits, and has hardly a pixel of it.
pub(crate) fn png_that_claims(width: u32, height: u32, bits: u8) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([bits, 6, 0, 0, 0]);
    let signature = b"\x89PNG\r\n\x1a\n".to_vec();
    let empty = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 0x01];
    [signature, chunk(b"IHDR", &header), chunk(b"IDAT", &empty), chunk(b"IEND", b"")].concat()
}

fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [name, content].concat();
    [&(content.len() as u32).to_be_bytes()[..], &named, &checksum(&named).to_be_bytes()].concat()
}

/// CRC-32 as PNG has it, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}
