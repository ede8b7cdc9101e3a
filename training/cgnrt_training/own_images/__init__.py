"""From a folder of photos to a CGN, stage by stage."""
