"""What reads data: arrays, tables, images and IDX files, data sets of other libraries; one source for each form."""
