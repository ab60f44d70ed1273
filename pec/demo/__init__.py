"""The demonstration: real customers, three nodes, the main job from import to audit."""
