// All there is to measure, in the order of RESULTS.md.

package main

var suites = []suite{
	liveCases,
	herdCases,
	failingCases,
	refusalCases,
	deadlineCases,
	bodyCases,
	pipelineCases,
	redisCases,
	crowdCases,
}
