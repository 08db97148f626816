//! Farlan and its rivals, measured side by side.
//!
//! Read in this order: [`scene`] (the topology), [`contestants`] and [`rivals`] (who is brought up
//! on it), [`measure`] and [`usage`] (one measurement), [`runner`], [`side_by_side`] and [`fat_pipes`]
//! (what is measured when), [`against`] (this build beside another), [`samples`] (what is kept), [`gates`], [`report`] and [`plot`] (what is
//! made of it).

pub mod against;
pub mod contestants;
pub mod fat_pipes;
pub mod gates;
pub mod measure;
pub mod plot;
pub mod report;
pub mod rivals;
pub mod runner;
pub mod samples;
pub mod scene;
pub mod side_by_side;
pub mod stats;
pub mod usage;
