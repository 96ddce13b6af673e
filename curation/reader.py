from curation.video import Source as Source, open_before as open_before
