//! What nodule costs: `just bench`.
//!
//! [`start`] is a pod's start through the agent, in a cluster; [`crowd`] is an agent with a thousand pods; [`image`] is how
//! images come to the node, beside what its [`peers`] take for the same [`payload`]. [`sandbox`] is what is below the agent: containers as it
//! orders them from the zygote, without a cluster: how fast they start, what they hold, what they do while idle, and how
//! fast a guest is. What is compared runs in the same minutes: only ratios travel from machine to machine.
//!
//! Of `sandbox`: [`container`] starts one, through a [`zygote`] or by an exec; [`program`] makes programs of any size;
//! [`latency`], [`burst`], [`density`], [`idle`], [`speed`] and [`serve`] (by [`load`]) measure; [`table`] and [`plot`] show.

mod burst;
mod compiler;
mod container;
mod containerd;
pub mod crowd;
mod density;
mod idle;
pub mod image;
mod latency;
mod load;
mod machine;
mod meter;
mod payload;
mod peers;
mod plot;
mod program;
pub mod sandbox;
mod serve;
mod speed;
pub mod start;
mod stats;
mod table;
mod ways;
mod zygote;
