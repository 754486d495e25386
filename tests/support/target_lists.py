"""A small target list."""

MIT = """#
# Full target list for orbit 9, sector 1
# Created Thu Aug 16 19:30:55 EDT 2018
#
TICID,Camera,CCD,Tmag,RA,Dec
8195886,1,2,9.85,311.3326,-38.4275
8196058,3,4,1.5,311.3688,-38.0655
"""
