"""Function transforms: traces that watch a function run, and sweeps over what they wrote down."""
