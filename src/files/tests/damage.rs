//! Images with bytes changed at random: whatever they say, the answer covers what was asked, in bounded time and memory.
